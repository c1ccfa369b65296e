// The rows of a panel: messages, and what the hub says between them. Everything
// that came over the wire goes into the page as text, never as markup.

const CLIP = 280; // characters of a payload that a row shows
const CLIP_LINES = 6; // and lines
const MAX_PARSED = 16 << 10; // characters; parsing hundreds of larger ones would freeze the page
const MAX_SHOWN = 64 << 10; // characters, expanded; a row must not keep a megabyte alive

const SIGNS = {
  gap: {
    title: "Gap",
    hint: "Something may be missing before this point: a page refetches its state here.",
    "redis-reconnect": "The hub had to subscribe to Redis anew.",
    "history-expired": "The stream came back with an id older than what the hub keeps.",
    "unknown-id": "The stream came back with an id that this hub does not know: it was restarted, or it is another one.",
    "too-large": "A message was over the payload limit.",
    "feed-reset": "The feed went back behind what had been read.",
  },
  bye: {
    title: "Bye",
    hint: "The browser comes back by itself.",
    expired: "The log-in ran out.",
    kicked: "The app or an operator ended this stream.",
    max_age: "This stream reached its greatest age.",
    draining: "The hub is stopping.",
  },
  busy: {
    title: "Busy",
    hint: "The browser asks again later, by itself.",
    clients: "The hub holds as many streams as it may.",
    "user-limit": "This user has as many streams as one may have.",
    draining: "The hub is stopping.",
    "auth-unavailable": "Who is asking could not be found out just now.",
  },
};

/** A row for a message { id, topic, data, latency, sent }. */
export function messageRow(message) {
  const text = compact(message.data);
  const row = element("li", "message");
  const meta = element("div", "meta");
  meta.append(idOf(message.id), topicOf(message.topic), latencyOf(message, text.json));
  row.append(meta, payloadOf(text.text, text.json !== undefined));
  return row;
}

/** A row for a gap, a bye or a busy { name, reason, id, times }. */
export function signRow(sign) {
  const words = SIGNS[sign.name];
  const row = element("li", `sign ${sign.name}`);
  const title = element("p", "what");
  title.append(element("b", "", words.title), " ", element("code", "", sign.reason));
  if (sign.name === "gap") title.append(" ", idOf(sign.id)); // an entry of the sequence, like a message
  if (sign.times > 1) title.append(" ", element("span", "times", `×${sign.times}`));
  const why = element("p", "why", [words[sign.reason], words.hint].filter(Boolean).join(" "));
  row.append(title, why);
  return row;
}

/** A thin line for what the panel did itself. */
export function noteRow(text) {
  return element("li", "line", text);
}

/** Makes the payload's button show and hide the rest. */
export function toggleMore(button) {
  const { code, short, full, label } = expandable.get(button);
  const open = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(open));
  button.textContent = open ? "Show less" : label;
  code.replaceChildren(...(open ? [full] : short()));
  code.classList.toggle("clipped", !open);
}

const expandable = new WeakMap(); // button → what it shows and hides

function idOf(id) {
  // <boot>-<seq>: what changes from row to row is the end.
  const cut = id.lastIndexOf("-") + 1;
  const node = element("code", "id");
  node.append(element("span", "boot", id.slice(0, cut)), id.slice(cut));
  return node;
}

function topicOf(topic) {
  if (topic === undefined) {
    const node = element("span", "topic untold", "onmessage");
    node.title = "The topic was not told: see the note below the panels.";
    return node;
  }
  return topic === "" ? element("span", "topic none", "no topic") : element("span", "topic", topic);
}

function latencyOf({ latency, wall }, json) {
  const node = element("span", "latency");
  const sent = json?.sent;
  if (latency !== undefined) {
    node.textContent = duration(latency);
    node.title = "From the click on this page to the arrival on this page.";
  } else if (typeof sent === "number" && wall - sent > -1000 && wall - sent < 3_600_000) {
    node.textContent = `≈ ${duration(Math.max(0, wall - sent), 0)}`;
    node.title = "From the payload’s number “sent”, by this browser’s clock.";
  } else {
    node.textContent = "—";
    node.title = "Not published by this page, and without a number “sent”: the latency is unknown.";
  }
  return node;
}

function payloadOf(text, isJSON) {
  const box = element("div", "payload");
  const code = element("code");
  box.append(code);
  if (text === "") code.append(element("span", "nothing", "empty payload"));
  // A slice of a long string keeps all of it in memory; a copy of one does not.
  const full = text.length <= MAX_SHOWN ? text : structuredClone(text.slice(0, MAX_SHOWN));
  const clipped = clip(full);
  const short = () => (isJSON ? coloured(clipped) : [clipped]);
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
  // A few characters more are no reason for a button.
  return text.length - end < 40 && end === CLIP ? text : text.slice(0, end);
}

// compact takes the white space out of JSON, between its tokens only: parsing and
// writing it anew would change numbers that JavaScript cannot hold.
function compact(data) {
  if (data.length > MAX_PARSED) return { text: data };
  try {
    const json = JSON.parse(data);
    return { json, text: data.replace(/("(?:[^"\\]|\\.)*")|\s+/g, "$1") };
  } catch {
    return { text: data };
  }
}

// coloured splits compact JSON into nodes: keys and punctuation step back, values
// stand out.
function coloured(text) {
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

/** A time in ms, for people. A short one is told to so many decimals. */
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
