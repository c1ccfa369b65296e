// The tables: counts per reason, and the connections to Redis.

import { $, element, setText } from "./dom.js";
import { count } from "./format.js";

const MEANINGS = {
  disconnects: {
    closed: "client disconnected", dead: "client stopped acknowledging", drain: "hub shut down",
    error: "another failure, see the hub's log", expired: "authentication expired", kicked: "by a control command", max_age: "reached --max-age",
    poll: "long poll completed", slow: "client read too slowly",
  },
  rejects: {
    "auth-unavailable": "temporary failure", "bad-request": "malformed", "bad-user": "invalid user id or groups",
    clients: "hub at capacity", draining: "hub shutting down", expired: "token expired or not valid yet", origin: "not allowed",
    topic: "not allowed", unauthorized: "not authenticated", "unknown-key": "no key for the token", "user-limit": "limit per user reached",
  },
  gaps: {
    "feed-reset": "Redis stream lost entries", "history-expired": "id too old", missed: "another hub received more", "redis-reconnect": "resubscribed to Redis",
    "too-large": "over --max-payload", "unknown-id": "not known to this hub",
  },
};

const FEED_FIGURES = [
  "messages_received", "messages_routed", "messages_unrouted", "messages_malformed", "messages_too_large", "reconnects",
];

/** Shows the counts per reason. */
export function showReasons(history, stats) {
  for (const [field, meanings] of Object.entries(MEANINGS)) {
    const body = $(`${field}-rows`);
    for (const [i, { reason, lately, total }] of history.byReason(stats, field).entries()) {
      const row = body.rows[i] ?? newRow(body, 2);
      const head = row.cells[0];
      if (head.dataset.reason !== reason) {
        head.dataset.reason = reason;
        head.replaceChildren(element("b", "", reason), " ", element("span", "dim", meanings[reason] ?? ""));
      }
      setText(row.cells[1], count(lately));
      setText(row.cells[2], count(total));
      row.classList.toggle("zero", total === 0);
      row.classList.toggle("lately", lately > 0);
    }
  }
}

/** Shows the connections to Redis. */
export function showFeeds(stats) {
  const body = $("feeds-rows");
  while (body.rows.length > stats.feeds.length) body.rows[body.rows.length - 1].remove();
  for (const [i, feed] of stats.feeds.entries()) {
    const row = body.rows[i] ?? newRow(body, 1 + FEED_FIGURES.length);
    setText(row.cells[0], feed.redis);
    row.cells[1].className = `link ${feed.connected ? "up" : "down"}`;
    setText(row.cells[1], feed.connected ? "connected" : "down");
    for (const [j, name] of FEED_FIGURES.entries()) {
      row.cells[2 + j].dataset.label = $("feeds-head").cells[2 + j].textContent;
      setText(row.cells[2 + j], count(feed[name]));
    }
  }
}

/** Appends a row with a header cell and cells for figures. */
export function newRow(body, figures) {
  const row = body.insertRow();
  const head = element("th");
  head.scope = "row";
  row.append(head);
  for (let i = 0; i < figures; i++) row.insertCell();
  return row;
}
