// The live tail: the messages of one user or group as they arrive.

import { $, announce, element, setText } from "./dom.js";
import { count, plural, secondOf } from "./format.js";
import { follow, Refused } from "./hub.js";

const MAX_ROWS = 200;
const CLIP = 2000; // maximum characters of a payload in a row
const REOPEN = 2000; // ms

export class Tail {
  #abort = null;
  #path = "";
  #received = 0;
  #waiting = []; // rows not yet shown, oldest first
  #frame = 0;

  constructor() {
    $("tail-start").addEventListener("click", () => (this.#abort ? this.stop() : this.#start()));
    $("tail-clear").addEventListener("click", () => this.#clear());
  }

  /** Switches to the user or group with an API path. */
  switchTo(path, kind) {
    this.stop();
    this.#path = path;
    setText($("tail-empty"), `New messages for this ${kind} appear here, even if the ${kind} does not have open streams.`);
    this.#clear();
  }

  /** Shows whether the hub allows tails. */
  allow(allowed) {
    $("tail-off").hidden = allowed;
    $("tail-on").hidden = !allowed;
    if (!allowed) this.stop();
  }

  stop() {
    this.#abort?.abort();
    this.#abort = null;
    setText($("tail-start"), "Follow messages");
    setText($("tail-state"), this.#received ? "stopped" : "");
  }

  async #start() {
    const { signal } = this.#abort = new AbortController();
    setText($("tail-start"), "Stop following");
    while (!signal.aborted) {
      setText($("tail-state"), "connecting");
      try {
        await follow(`${this.#path}/messages`, signal, (name, data) => this.#receive(name, data), () => {
          setText($("tail-state"), "following");
        });
      } catch (err) {
        if (signal.aborted) return;
        if (err instanceof Refused && err.status !== 503) {
          this.stop();
          setText($("tail-state"), "");
          this.#note(`Rejected by the hub: ${err.message}.`);
          return;
        }
        if (err instanceof Refused) this.#note(`Temporarily rejected: ${err.message}.`);
      }
      if (signal.aborted) return;
      setText($("tail-state"), "disconnected, reconnecting");
      this.#note("Connection to the hub lost. Messages that arrive before it is back are not shown here.");
      await new Promise(done => setTimeout(done, REOPEN * (0.75 + Math.random() / 2)));
    }
  }

  #receive(name, data) {
    switch (name) {
      case "message":
        this.#received++;
        this.#add(messageRow(data));
        break;
      case "gap":
        this.#add(element("li", "sign", `Gap: ${data.reason}. Streams receive this gap, because messages may be missing.`));
        break;
      case "skipped":
        this.#note(`${plural(data.messages, "message")} skipped here, because this page was too slow. Streams are not affected.`);
        break;
    }
  }

  #note(text) {
    this.#add(element("li", "note", text));
    announce(text);
  }

  // Updates the page at most once per animation frame.
  #add(row) {
    this.#waiting.push(row);
    if (this.#waiting.length > MAX_ROWS) this.#waiting.shift();
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      const rows = $("tail-rows");
      rows.prepend(...this.#waiting.reverse());
      this.#waiting = [];
      while (rows.childElementCount > MAX_ROWS) rows.lastElementChild.remove();
      this.#total();
    });
  }

  #clear() {
    this.#received = 0;
    this.#waiting = [];
    $("tail-rows").replaceChildren();
    this.#total();
  }

  #total() {
    setText($("tail-count"), plural(this.#received, "message"));
    $("tail-empty").hidden = $("tail-rows").childElementCount > 0;
    $("tail-clear").hidden = $("tail-rows").childElementCount === 0;
  }
}

function messageRow({ id, topic, data, broadcast }) {
  const row = element("li", "message");
  const meta = element("p", "meta");
  meta.append(element("span", "dim", secondOf(Date.now() / 1000)), element("code", "id", id),
    topic === "" ? element("span", "dim", "no topic") : element("span", "topic", topic));
  if (broadcast) meta.append(element("span", "topic all", "broadcast"));
  const payload = element("code", "payload", data.slice(0, CLIP));
  if (data === "") payload.append(element("span", "dim", "empty payload"));
  if (data.length > CLIP) payload.append(element("span", "dim", ` … ${count(data.length - CLIP)} more characters`));
  row.append(meta, payload);
  return row;
}
