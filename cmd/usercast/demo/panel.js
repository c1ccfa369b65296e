// One panel: whose stream, its state, and what it received.

import { duration, messageRow, noteRow, signRow, toggleMore } from "./rows.js";
import { Stream, streamURL, whyRefused } from "./stream.js";

const MAX_ROWS = 200;
const FEW = 20; // rows that may flash at once; more would only flicker
const SETTLED = 500; // ms after which an open stream is taken to stay
const STUCK = 5_000; // ms of connecting after which the page says why that may be

const WORDS = { connecting: "connecting", open: "open", reconnecting: "reconnecting", closed: "closed", refused: "closed" };

export class Panel {
  #path;
  #ledger;
  #dom;

  #stream = null;
  #url = "";
  #user = "";
  #topics = [];
  #state = "closed";
  #stateSince = 0;
  #listeningSince = 0; // when this user's messages began to arrive here
  #lostAt = 0;
  #back = ""; // said before the next thing that shows that the stream is really back

  #count = 0;
  #lastID = "";
  #pings = 0;
  #pingedAt = 0;

  #waiting = []; // rows to be made, oldest first
  #frame = 0;
  #newest = null; // the record of the newest row

  constructor(section, path, ledger) {
    this.#path = path;
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

  /** Opens the stream that the panel's fields name, in place of the one it has. */
  open() {
    const { user: input } = this.#dom;
    const { user, topics } = this.#asked();
    const fault = faultOf(user);
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

    // Coming back to the same user is coming back with the last id, as the
    // browser itself does after a loss: the hub then tells what was missed.
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

  // What the fields ask for.
  #asked() {
    const topics = this.#dom.topics.value.split(",").map(topic => topic.trim()).filter(Boolean);
    return { user: this.user, topics: [...new Set(topics)] };
  }

  // Whether that is another stream than the one that is open.
  #edited() {
    const { user, topics } = this.#asked();
    return user !== this.#user || topics.join() !== this.#topics.join();
  }

  /** Shows what changes by itself as time passes. */
  tick() {
    const now = performance.now();
    const { forTime, since } = this.#dom;
    const inState = now - this.#stateSince;
    if (this.#state === "open" && inState > SETTLED) this.#sayBack();
    const waits = this.#state === "reconnecting" || this.#state === "connecting";
    setText(forTime, waits && inState >= 1000 ? ago(inState) : "");
    if (this.#state === "connecting" && inState > STUCK) {
      this.#notice("Still connecting. Over HTTP/1.1 a browser keeps at most six connections to one host: close other tabs of this page.");
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
    if (word === "open" && this.#state === "reconnecting") this.#back = `back after ${duration(now - this.#lostAt)}`;
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

  // A hub without a place for the stream opens it too, only to say so and to end
  // it: that is not being back.
  #sayBack() {
    this.#lostAt = 0;
    if (this.#back) this.#add({ kind: "note", text: this.#back });
    this.#back = "";
  }

  #onMessage(id, topic, data) {
    this.#sayBack();
    const at = performance.now();
    const ours = this.#ledger.meet(this, this.#user, topic, data, this.#listeningSince);
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
    if (name !== "busy") this.#sayBack();
    this.#lastID = id || this.#lastID;
    const newest = this.#waiting.at(-1) ?? this.#newest;
    if (newest?.kind === "sign" && newest.name === name && newest.reason === reason) {
      newest.times++; // a hub that stays full says so at each attempt
      newest.id = id;
      newest.node?.replaceWith(newest.node = signRow(newest));
      this.#schedule();
      return;
    }
    this.#add({ kind: "sign", name, reason, id, times: 1 });
  }

  #onPing(id) {
    this.#sayBack();
    this.#lastID = id || this.#lastID;
    this.#pings++;
    this.#pingedAt = performance.now();
    const { ping } = this.#dom;
    ping.classList.remove("beat");
    requestAnimationFrame(() => ping.classList.add("beat"));
    this.tick();
    this.#schedule();
  }

  // Rows are made once a frame, whatever came in between; those that would be
  // pushed out at once are not made at all, and not kept while the tab is hidden.
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

  // One of the two buttons is there; the focus goes along.
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

/** Why nobody can be this user; "" if somebody can. */
function faultOf(user) {
  if (user === "") return "Whose stream? Fill in a user id.";
  if (user === "*") return "* stands for everybody: one can publish to it, not listen as it.";
  if (user.includes(":")) return "A user id has no colon: what follows the first one is the topic.";
  return "";
}

function ago(ms) {
  const seconds = Math.floor(ms / 1000);
  return seconds < 120 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
}

// Writing the same text again would still cost a layout, and a screen reader may
// say it again.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}
