// The rows of a panel: messages, and the other events of the hub. Data from the network is
// inserted as text, never as markup.

const CLIP = 280; // maximum characters of a payload in a collapsed row
const CLIP_LINES = 6; // maximum lines
const MAX_PARSED = 16 << 10; // characters; parsing hundreds of larger payloads would block the page
const MAX_SHOWN = 64 << 10; // maximum characters in an expanded row, to limit the memory of a row

const SIGNS = {
  gap: {
    title: "Gap",
    hint: "Messages may be missing before this point: the page should refetch its state.",
    "redis-reconnect": "The hub had to resubscribe to Redis.",
    "history-expired": "The client resumed from an id that is older than the hub's history.",
    "unknown-id": "The client resumed from an id that this hub does not know: the hub was restarted, or the id is from another hub.",
    "too-large": "A message was larger than the payload limit.",
    "feed-reset": "The Redis stream went back to a point before the last entry read.",
  },
  bye: {
    title: "Bye",
    hint: "The browser reconnects automatically.",
    expired: "The authentication expired.",
    kicked: "The app or an operator disconnected this user.",
    max_age: "The stream reached its maximum age.",
    draining: "The hub is shutting down.",
  },
  busy: {
    title: "Busy",
    hint: "The browser retries automatically.",
    clients: "The hub is at capacity.",
    "user-limit": "The stream limit for this user is reached.",
    draining: "The hub is shutting down.",
    "auth-unavailable": "Authentication is temporarily unavailable.",
  },
};

/** Creates the row of a message { id, topic, data, latency, wall }. */
export function messageRow(message) {
  const text = compact(message.data);
  const row = element("li", "message");
  const meta = element("div", "meta");
  meta.append(idOf(message.id), topicOf(message.topic), latencyOf(message, text.json));
  row.append(meta, payloadOf(text.text, text.json !== undefined));
  return row;
}

/** Creates the row of a gap, bye or busy event { name, reason, id, times }. */
export function signRow(sign) {
  const words = SIGNS[sign.name];
  const row = element("li", `sign ${sign.name}`);
  const title = element("p", "what");
  title.append(element("b", "", words.title), " ", element("code", "", sign.reason));
  if (sign.name === "gap") title.append(" ", idOf(sign.id)); // a gap has an id, like a message
  if (sign.times > 1) title.append(" ", element("span", "times", `×${sign.times}`));
  const why = element("p", "why", [words[sign.reason], words.hint].filter(Boolean).join(" "));
  row.append(title, why);
  return row;
}

/** Creates a row for an event of the panel itself. */
export function noteRow(text) {
  return element("li", "line", text);
}

/** Expands or collapses the payload of a row. */
export function toggleMore(button) {
  const { code, short, full, label } = expandable.get(button);
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  button.textContent = open ? "Show less" : label;
  code.replaceChildren(...(open ? [full] : short()));
  code.classList.toggle("clipped", !open);
}

const expandable = new WeakMap(); // button → the contents that it shows and hides

function idOf(id) {
  // <marker>-<n>: only the end changes from row to row, until the next marker.
  const cut = id.lastIndexOf("-") + 1;
  const node = element("code", "id");
  node.append(element("span", "boot", id.slice(0, cut)), id.slice(cut));
  return node;
}

function topicOf(topic) {
  if (topic === undefined) {
    const node = element("span", "topic unknown", "onmessage");
    node.title = "Topic unknown: see the note below the panels.";
    return node;
  }
  return topic === "" ? element("span", "topic none", "no topic") : element("span", "topic", topic);
}

function latencyOf({ latency, wall }, json) {
  const node = element("span", "latency");
  const sent = json?.sent;
  if (latency !== undefined) {
    node.textContent = duration(latency);
    node.title = "Time from the click on this page to the arrival of the message.";
  } else if (typeof sent === "number" && wall - sent > -1000 && wall - sent < 3_600_000) {
    node.textContent = `≈ ${duration(Math.max(0, wall - sent), 0)}`;
    node.title = "Computed from the number “sent” in the payload and the clock of this browser.";
  } else {
    node.textContent = "—";
    node.title = "Latency unknown: the message was not published by this page and does not contain a number “sent”.";
  }
  return node;
}

function payloadOf(text, isJSON) {
  const box = element("div", "payload");
  const code = element("code");
  box.append(code);
  if (text === "") code.append(element("span", "nothing", "empty payload"));
  // A slice of a long string keeps the whole string in memory; a copy of the slice does not.
  const full = text.length <= MAX_SHOWN ? text : structuredClone(text.slice(0, MAX_SHOWN));
  const clipped = clip(full);
  const short = () => (isJSON ? colored(clipped) : [clipped]);
  code.append(...short());
  if (clipped.length < text.length) {
    code.classList.add("clipped");
    const whole = full.length === text.length;
    const label = `Show ${whole ? "all" : `the first ${thousands(full.length)} of`} ${thousands(text.length)} characters`;
    const button = element("button", "more quiet", label);
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    expandable.set(button, { code, short, full, label });
    box.append(button);
  }
  return box;
}

function clip(text) {
  let end = Math.min(text.length, CLIP);
  for (let i = -1, lines = 0; lines < CLIP_LINES; lines++) {
    i = text.indexOf("\n", i + 1);
    if (i < 0) break;
    if (lines === CLIP_LINES - 1) end = Math.min(end, i);
  }
  // Shows a few characters more instead of a button.
  return text.length - end < 40 && end === CLIP ? text : text.slice(0, end);
}

// compact removes the white space between the tokens of JSON. Serializing the parsed JSON
// would change numbers that JavaScript cannot represent.
function compact(data) {
  if (data.length > MAX_PARSED) return { text: data };
  try {
    const json = JSON.parse(data);
    return { json, text: data.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1") };
  } catch {
    return { text: data };
  }
}

// colored splits compact JSON into nodes, so that keys and string values have different
// colors.
function colored(text) {
  const nodes = [];
  let at = 0;
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"(:?)/g)) {
    if (match.index > at) nodes.push(text.slice(at, match.index));
    nodes.push(element("span", match[1] ? "key" : "string", match[0]));
    at = match.index + match[0].length;
  }
  nodes.push(text.slice(at));
  return nodes;
}

/** Formats a time in ms; times below 10 ms have the given number of decimals. */
export function duration(ms, decimals = 1) {
  if (ms < 9.95) return `${ms.toFixed(decimals)} ms`;
  if (ms < 999.5) return `${ms.toFixed(0)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

function thousands(n) {
  return n.toLocaleString("en");
}

function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}
