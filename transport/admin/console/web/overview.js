// The charts, and the figures of the hub.

import { Chart, percentileText } from "./charts.js";
import { $, setText } from "./dom.js";
import { bytes, count, latency, lasting, plural } from "./format.js";
import { quantile } from "./histogram.js";

const SUMMARY_EVERY = 10; // seconds; more often, it would interrupt screen readers

const percentile = (key, color) => ({ key, label: key, color, value: q => q.value, show: percentileText });

export class Overview {
  #charts;
  #summarized = 0;

  constructor() {
    this.#charts = [
      new Chart($("chart-streams"), [
        { key: "clients", label: "streams", color: "a", show: count },
        { key: "users", label: "users", color: "b", show: count },
      ]),
      new Chart($("chart-messages"), [
        { key: "received", label: "from Redis", color: "a" },
        { key: "unrouted", label: "unrouted", color: "c" },
      ]),
      new Chart($("chart-deliveries"), [
        { key: "deliveries", label: "written", color: "a" },
        { key: "replayed", label: "replayed", color: "b" },
        { key: "gaps", label: "gaps", color: "c" },
      ]),
      new Chart($("chart-latency"), [percentile("p50", "a"), percentile("p90", "b"), percentile("p99", "c")],
        { logarithmic: true, axis: latency }),
      new Chart($("chart-queues"), [{ key: "queued", label: "queued", color: "a", show: count }]),
      new Chart($("chart-changes"), [
        { key: "connects", label: "opened", color: "ok" },
        { key: "ended", label: "ended", color: "b" },
        { key: "refused", label: "rejected", color: "c" },
      ]),
    ];
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#charts.forEach(c => c.recolor()));
  }

  show(history, stats) {
    for (const chart of this.#charts) chart.draw(history.entries);
    const now = history.entries.at(-1).at;
    if (now - this.#summarized >= SUMMARY_EVERY) {
      this.#summarized = now;
      for (const chart of this.#charts) chart.summarize();
    }
    this.#figures(stats);
  }

  #figures(stats) {
    const { limits, resumes } = stats;
    const of = (n, limit, show) => (limit > 0 ? `${show(n)} of ${show(limit)}` : show(n));
    const median = h => {
      const q = quantile(h, 0.5), high = quantile(h, 0.99);
      return q ? `${percentileText(q)} median, ${percentileText(high)} p99` : "none yet";
    };
    const values = {
      "hub-version": stats.version,
      "hub-uptime": lasting(stats.uptime_seconds),
      "figure-streams": of(stats.clients, limits.max_clients, count),
      "figure-groups": stats.groups_enabled ? count(stats.groups) : "disabled",
      "figure-queued": of(stats.queue_bytes, limits.queue_total_bytes, bytes),
      "figure-history": `${of(stats.history_bytes, limits.history_bytes, bytes)}, ${plural(stats.history_entries, "message")}`,
      "figure-reach": `${lasting(stats.history_seconds.here)} here, ${lasting(stats.history_seconds.elsewhere)} from other hubs`,
      "figure-resumes": `${count(resumes.this_hub)} here, ${count(resumes.other_hub)} from other hubs, ${count(resumes.unknown)} unknown`,
      "figure-delivered": `${count(stats.deliveries)}, ${bytes(stats.delivery_bytes)}`,
      "figure-probe": median(stats.redis_probe_seconds),
      "figure-auth": median(stats.auth_seconds),
      "figure-checks": stats.auth_concurrency > 0
        ? `${count(stats.auth_in_flight)} of ${count(stats.auth_concurrency)} in flight, ${count(stats.auth_waiting)} waiting`
        : "not used",
    };
    for (const [id, text] of Object.entries(values)) setText($(id), text);
  }
}
