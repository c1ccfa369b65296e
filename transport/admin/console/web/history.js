// The statistics of the last five minutes, and the rates and percentiles derived from them.

import { quantile, since } from "./histogram.js";

export const SPAN = 300; // seconds of history

const SMOOTH = 5; // seconds over which percentiles and the rates of rare events are computed

const sum = object => Object.values(object).reduce((a, b) => a + b, 0);

/** The sum of a value over all feeds. */
export const overFeeds = (stats, name) => stats.feeds.reduce((n, feed) => n + feed[name], 0);

// Counters whose rates the page shows.
const OFTEN = {
  received: stats => overFeeds(stats, "messages_received"),
  unrouted: stats => overFeeds(stats, "messages_unrouted"),
  deliveries: stats => stats.deliveries,
  replayed: stats => stats.replayed,
};
const RARELY = {
  connects: stats => stats.connects,
  ended: stats => sum(stats.disconnects),
  refused: stats => sum(stats.rejects),
  gaps: stats => sum(stats.gaps),
};

const PERCENTILES = { p50: 0.5, p90: 0.9, p99: 0.99 };

// Sets the per-second rates of counters since an earlier snapshot; null without such a snapshot.
function grow(figures, counters, stats, before) {
  const elapsed = before ? stats.uptime_seconds - before.uptime_seconds : 0;
  for (const [name, read] of Object.entries(counters)) {
    figures[name] = elapsed > 0 ? Math.max(0, read(stats) - read(before)) / elapsed : null;
  }
}

export class History {
  #entries = []; // { at, stats, figures }, oldest first; stats is null where the connection to the hub was lost

  /** The entries, for the charts. */
  get entries() {
    return this.#entries;
  }

  /** Adds a snapshot that arrived at a time, in Unix seconds. */
  add(at, stats) {
    const figures = { clients: stats.clients, users: stats.users, queued: stats.frames_queued };
    const before = this.#entries.at(-1)?.stats;
    grow(figures, OFTEN, stats, before?.started === stats.started ? before : undefined);
    const base = this.#sameRun(stats, at - SMOOTH);
    grow(figures, RARELY, stats, base);
    const lately = base && since(stats.delivery_seconds, base.delivery_seconds);
    for (const [name, share] of Object.entries(PERCENTILES)) {
      figures[name] = lately ? quantile(lately, share) : null;
    }
    this.#push({ at, stats, figures });
  }

  /** Records that the connection to the hub was lost, which interrupts the lines. */
  lose(at) {
    if (this.#entries.length && this.#entries.at(-1).stats) this.#push({ at, stats: null, figures: {} });
  }

  /**
   * The earliest snapshot at or after a time from the current hub process, because a
   * restarted hub counts from zero.
   */
  #sameRun(stats, from) {
    return this.#entries.find(e => e.at >= from && e.stats?.started === stats.started)?.stats;
  }

  /** The counts per reason, within the span and in total: [{ reason, lately, total }]. */
  byReason(stats, field) {
    const base = this.#sameRun(stats, -Infinity) ?? stats;
    return Object.keys(stats[field]).sort().map(reason => ({
      reason, total: stats[field][reason], lately: stats[field][reason] - base[field][reason],
    }));
  }

  #push(entry) {
    this.#entries.push(entry);
    while (this.#entries[0].at < entry.at - SPAN) this.#entries.shift();
  }
}
