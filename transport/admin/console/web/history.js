// What the hub has said in the last five minutes, and what follows from it.

import { quantile, since } from "./histogram.js";

export const SPAN = 300; // seconds that are kept

const SMOOTH = 5; // seconds over which percentiles are taken, and what happens rarely

const sum = object => Object.values(object).reduce((a, b) => a + b, 0);

/** The sum of a figure over all feeds. */
export const overFeeds = (stats, name) => stats.feeds.reduce((n, feed) => n + feed[name], 0);

// Counters of which the page shows how fast they grow.
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

// How fast counters have grown since an earlier snapshot, a second; null: nobody knows.
function grow(figures, counters, stats, before) {
  const elapsed = before ? stats.uptime_seconds - before.uptime_seconds : 0;
  for (const [name, read] of Object.entries(counters)) {
    figures[name] = elapsed > 0 ? Math.max(0, read(stats) - read(before)) / elapsed : null;
  }
}

export class History {
  #entries = []; // { at, stats, figures }, oldest first; stats null: the hub was lost

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

  /** Notes that the hub was lost: the lines are broken here. */
  lose(at) {
    if (this.#entries.length && this.#entries.at(-1).stats) this.#push({ at, stats: null, figures: {} });
  }

  /**
   * The earliest snapshot that is known of the hub that runs now, not before a time:
   * a hub that was started anew counts from zero.
   */
  #sameRun(stats, from) {
    return this.#entries.find(e => e.at >= from && e.stats?.started === stats.started)?.stats;
  }

  /** What was counted by reason, within the span and in all: [{ reason, lately, total }]. */
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
