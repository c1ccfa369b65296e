// What was counted by reason, and the links to Redis.

import { $, element, setText } from "./dom.js";
import { count } from "./format.js";

const MEANINGS = {
  disconnects: {
    closed: "the browser left", dead: "the peer acknowledged nothing", drain: "the hub was stopping",
    error: "anything else", expired: "the log-in ran out", kicked: "by order", max_age: "reached --max-age",
    poll: "a long poll was over", slow: "the reader was too slow",
  },
  rejects: {
    "auth-unavailable": "who asks could not be found out", "bad-request": "malformed", "bad-user": "an id nobody can have",
    clients: "the hub was full", draining: "the hub was stopping", origin: "another site's page",
    topic: "a topic not allowed", unauthorized: "not logged in", "unknown-key": "no key verifies the token", "user-limit": "too many of one user",
  },
  gaps: {
    "feed-reset": "the feed went back", "history-expired": "away for too long", "redis-reconnect": "subscribed anew",
    "too-large": "a message over the limit", "unknown-id": "another hub's id",
  },
};

const FEED_FIGURES = [
  "messages_received", "messages_routed", "messages_unrouted", "messages_malformed", "messages_too_large", "reconnects",
];

/** Shows what the hub counted by reason. */
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

/** Shows the links to Redis. */
export function showFeeds(stats) {
  const body = $("feeds-rows");
  while (body.rows.length > stats.feeds.length) body.rows[body.rows.length - 1].remove();
  for (const [i, feed] of stats.feeds.entries()) {
    const row = body.rows[i] ?? newRow(body, 1 + FEED_FIGURES.length);
    setText(row.cells[0], feed.redis);
    row.cells[1].className = `link ${feed.connected ? "up" : "away"}`;
    setText(row.cells[1], feed.connected ? "connected" : "away");
    for (const [j, name] of FEED_FIGURES.entries()) {
      row.cells[2 + j].dataset.label = $("feeds-head").cells[2 + j].textContent;
      setText(row.cells[2 + j], count(feed[name]));
    }
  }
}

function newRow(body, figures) {
  const row = body.insertRow();
  const head = element("th");
  head.scope = "row";
  row.append(head);
  for (let i = 0; i < figures; i++) row.insertCell();
  return row;
}
