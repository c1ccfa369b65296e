// A panel: the user of the stream, its state, and the messages that it received.

import { duration, messageRow, noteRow, signRow, toggleMore } from "./rows.js";
import { Stream, streamURL, whyRefused } from "./stream.js";

const MAX_ROWS = 200;
const FEW = 20; // maximum number of new rows to highlight; more would flicker
const SETTLED = 500; // ms after which an open stream counts as established
const STUCK = 5_000; // ms of connecting after which the page shows a possible reason

const WORDS = { connecting: "connecting", open: "open", reconnecting: "reconnecting", closed: "closed", refused: "closed" };

export class Panel {
  #path;
  #separator;
  #ledger;
  #dom;

  #stream = null;
  #url = "";
  #user = "";
  #topics = [];
  #state = "closed";
  #stateSince = 0;
  #listeningSince = 0; // when the stream of this user was opened
  #lostAt = 0;
  #back = ""; // note to show as soon as the stream is established again

  #count = 0;
  #lastID = "";
  #pings = 0;
  #pingedAt = 0;

  #waiting = []; // records without a row yet, oldest first
  #frame = 0;
  #newest = null; // the record of the newest row

  constructor(section, path, separator, ledger) {
    this.#path = path;
    this.#separator = separator;
    this.#ledger = ledger;
    const find = selector => section.querySelector(selector);
    this.#dom = {
      section,
      who: section.querySelectorAll(".who"),
      word: find(".word"),
      forTime: find(".for"),
      count: find(".count"),
      form: find("form"),
      user: find("[name=user]"),
      topics: find("[name=topics]"),
      open: find(".open"),
      close: find(".close"),
      notice: find(".notice"),
      scroll: find(".scroll"),
      rows: find(".rows"),
      empty: find(".empty"),
      ping: find(".ping"),
      since: find(".since"),
      last: find(".last code"),
      request: find(".request code"),
    };
    const { form, user, topics, close, rows } = this.#dom;
    form.addEventListener("submit", e => {
      e.preventDefault();
      if (!this.#stream || this.#edited()) this.open();
    });
    for (const input of [user, topics]) {
      input.addEventListener("input", () => input.setCustomValidity(""));
      input.addEventListener("change", () => { // Enter, or the field was left
        if (this.#stream && this.#edited()) this.open();
      });
    }
    close.addEventListener("click", () => this.close());
    rows.addEventListener("click", e => {
      const button = e.target.closest("button.more");
      if (button) toggleMore(button);
    });
  }

  get user() {
    return this.#dom.user.value;
  }

  /** Opens the stream that the fields of the panel specify, and closes the previous one. */
  open() {
    const { user: input } = this.#dom;
    const { user, topics } = this.#fields();
    const fault = faultOf(user, this.#separator);
    input.setCustomValidity(fault);
    if (fault) {
      this.close();
      input.reportValidity();
      return;
    }
    const sameUser = user === this.#user;
    this.#stream?.close();
    if (!sameUser) this.#forgetUser(user);
    this.#topics = topics;

    // A new stream of the same user resumes from the last id, as a browser does when
    // it reconnects: the hub then replays the missed messages.
    this.#url = streamURL(this.#path, { user, topics, resume: this.#lastID });
    this.#dom.request.textContent = `GET ${this.#url}`;
    this.#setState("connecting");
    this.#stream = new Stream(this.#url, topics, {
      state: word => this.#onState(word),
      message: (id, topic, data) => this.#onMessage(id, topic, data),
      sign: (name, reason, id) => this.#onSign(name, reason, id),
      ping: id => this.#onPing(id),
    });
    this.#showButtons();
  }

  close() {
    this.#stream?.close();
    this.#stream = null;
    this.#setState("closed");
    this.#showButtons();
  }

  // The user and the topics in the fields.
  #fields() {
    const topics = this.#dom.topics.value.split(",").map(topic => topic.trim()).filter(Boolean);
    return { user: this.user, topics: [...new Set(topics)] };
  }

  // Reports whether the fields specify a different stream from the open one.
  #edited() {
    const { user, topics } = this.#fields();
    return user !== this.#user || topics.join() !== this.#topics.join();
  }

  /** Updates the elapsed times. */
  tick() {
    const now = performance.now();
    const { forTime, since } = this.#dom;
    const inState = now - this.#stateSince;
    if (this.#state === "open" && inState > SETTLED) this.#showBack();
    const waits = this.#state === "reconnecting" || this.#state === "connecting";
    setText(forTime, waits && inState >= 1000 ? ago(inState) : "");
    if (this.#state === "connecting" && inState > STUCK) {
      this.#notice("Still connecting. Over HTTP/1.1, browsers open at most six connections to one host: close other tabs of this page.");
    }
    if (this.#pings) {
      const times = this.#pings === 1 ? "1 ping" : `${this.#pings} pings`;
      const quiet = now - this.#pingedAt;
      setText(since, `${times}, last ${quiet < 1000 ? "just now" : `${ago(quiet)} ago`}`);
    }
  }

  #forgetUser(user) {
    this.#user = user;
    this.#listeningSince = performance.now();
    this.#lastID = "";
    this.#count = this.#pings = 0;
    this.#waiting = [];
    this.#newest = null;
    const { who, rows, since } = this.#dom;
    for (const node of who) node.textContent = user;
    rows.replaceChildren();
    setText(since, "no ping yet");
    this.#showTotals();
  }

  #onState(word) {
    const now = performance.now();
    if (word === "open" && this.#state === "reconnecting") this.#back = `reconnected after ${duration(now - this.#lostAt)}`;
    if (word !== "open") this.#back = "";
    if (word === "reconnecting" && this.#state !== "reconnecting") this.#lostAt ||= now;
    this.#setState(word);
    if (word === "refused") this.#onRefused();
  }

  async #onRefused() {
    const stream = this.#stream;
    this.#stream = null;
    stream?.close();
    this.#showButtons();
    const why = await whyRefused(this.#url);
    if (!this.#stream) this.#notice(why);
  }

  // A hub at capacity also opens the stream, but only to send busy and to close it.
  // The stream is therefore established only after other events or some time.
  #showBack() {
    this.#lostAt = 0;
    if (this.#back) this.#add({ kind: "note", text: this.#back });
    this.#back = "";
  }

  #onMessage(id, topic, data) {
    this.#showBack();
    const at = performance.now();
    const ours = this.#ledger.match(this, this.#user, topic, data, this.#listeningSince);
    this.#count++;
    this.#lastID = id;
    this.#add({
      kind: "message", id, data,
      topic: topic ?? ours?.topic,
      latency: ours && at - ours.at,
      wall: Date.now(),
    });
  }

  #onSign(name, reason, id) {
    if (name !== "busy") this.#showBack();
    this.#lastID = id || this.#lastID;
    const newest = this.#waiting.at(-1) ?? this.#newest;
    if (newest?.kind === "sign" && newest.name === name && newest.reason === reason) {
      newest.times++; // a hub that remains at capacity sends busy at each attempt
      newest.id = id;
      newest.node?.replaceWith(newest.node = signRow(newest));
      this.#schedule();
      return;
    }
    this.#add({ kind: "sign", name, reason, id, times: 1 });
  }

  #onPing(id) {
    this.#showBack();
    this.#lastID = id || this.#lastID;
    this.#pings++;
    this.#pingedAt = performance.now();
    const { ping } = this.#dom;
    ping.classList.remove("beat");
    requestAnimationFrame(() => ping.classList.add("beat"));
    this.tick();
    this.#schedule();
  }

  // Rows are created at most once per animation frame. Records that would be removed again
  // immediately get no row, and are not kept while the tab is hidden.
  #add(record) {
    this.#waiting.push(record);
    if (this.#waiting.length >= 2 * MAX_ROWS) this.#waiting.splice(0, this.#waiting.length - MAX_ROWS);
    this.#schedule();
  }

  #schedule() {
    this.#frame ||= requestAnimationFrame(() => this.#flush());
  }

  #flush() {
    this.#frame = 0;
    const records = this.#waiting.slice(-MAX_ROWS);
    this.#waiting = [];
    if (records.length) {
      const { rows } = this.#dom;
      const made = records.map(record => {
        const node = record.node = nodeOf(record);
        if (records.length <= FEW) node.classList.add("new");
        return node;
      });
      this.#newest = records.at(-1);
      rows.prepend(...made.reverse());
      while (rows.childElementCount > MAX_ROWS) rows.lastElementChild.remove();
    }
    this.#showTotals();
  }

  #showTotals() {
    const { count, last, empty, rows } = this.#dom;
    count.firstElementChild.textContent = this.#count.toLocaleString("en");
    count.lastChild.data = this.#count === 1 ? " message" : " messages";
    setText(last, this.#lastID || "–");
    empty.hidden = rows.childElementCount > 0;
  }

  #setState(state) {
    if (state === this.#state) return;
    this.#state = state;
    this.#stateSince = performance.now();
    const { section, word } = this.#dom;
    section.dataset.state = state;
    setText(word, WORDS[state]);
    this.#notice("");
    this.tick();
  }

  // Shows one of the two buttons, and moves the focus to it.
  #showButtons() {
    const { open, close } = this.#dom;
    const live = this.#stream !== null;
    const focused = document.activeElement === open || document.activeElement === close;
    open.hidden = live;
    close.hidden = !live;
    if (focused) (live ? close : open).focus();
  }

  #notice(text) {
    const { notice } = this.#dom;
    setText(notice, text);
    notice.hidden = text === "";
  }
}

function nodeOf(record) {
  switch (record.kind) {
    case "message": return messageRow(record);
    case "sign": return signRow(record);
    default: return noteRow(record.text);
  }
}

/** Returns why a stream of this user cannot be opened, or "". */
function faultOf(user, separator) {
  if (user === "") return "Enter a user id.";
  if (user === "*") return "* means all users: you can publish to it, but not open a stream as it.";
  if (user.includes(separator)) return `A user id must not contain ${separator}, which separates user and topic.`;
  return "";
}

function ago(ms) {
  const seconds = Math.floor(ms / 1000);
  return seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
}

// Setting equal text would still cause a layout, and a screen reader might announce it
// again.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
