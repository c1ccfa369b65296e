// The panel of one user: the open streams on this hub, and the button that closes them.

import { $, announce, element, setText } from "./dom.js";
import { bytes, count, lasting, plural } from "./format.js";
import { askJSON, Refused, userPath } from "./hub.js";
import { Tail } from "./tail.js";

const EVERY = 2000; // ms between requests

export class UserPanel {
  #user = null;
  #path = "";
  #timer = 0;
  #tail = new Tail();
  #signedOut; // called when the token is rejected

  constructor(signedOut) {
    this.#signedOut = signedOut;
    $("lookup").addEventListener("submit", e => {
      e.preventDefault();
      this.#ask($("lookup-user").value);
    });
    $("user-close").addEventListener("click", () => {
      this.close();
      $("lookup-user").focus();
    });
    $("user-disconnect").addEventListener("click", () => {
      setText($("confirm-user"), this.#user);
      $("confirm").showModal();
    });
    $("confirm").addEventListener("close", () => {
      if ($("confirm").returnValue === "yes") this.#disconnect();
      $("confirm").returnValue = "";
    });
    $("confirm-yes").addEventListener("click", () => $("confirm").close("yes"));
    $("confirm-no").addEventListener("click", () => $("confirm").close());
    addEventListener("hashchange", () => this.openFromAddress());
  }

  /** Opens the user in the fragment of the URL, so that a lookup can be bookmarked and shared. */
  openFromAddress() {
    const [, user] = location.hash.match(/^#user=(.*)$/s) ?? [];
    if (user === undefined) return;
    try {
      this.open(decodeURIComponent(user));
    } catch { /* invalid percent-encoding */ }
  }

  #ask(user) {
    const hash = `#user=${encodeURIComponent(user)}`;
    if (location.hash === hash) this.open(user);
    else location.hash = hash; // the hashchange listener opens it
  }

  async open(user) {
    clearTimeout(this.#timer);
    this.#user = user;
    this.#path = userPath(user);
    $("lookup-user").value = user;
    setText($("user-name"), user);
    setText($("user-result"), "");
    $("user").hidden = false;
    $("user-rows").replaceChildren();
    setText($("user-count"), "");
    this.#tail.switchTo(this.#path);
    if (this.#path === null) {
      this.#fail("Browsers cannot request this user id, because they treat it as a relative path. Use curl --path-as-is.");
      return;
    }
    if (await this.#look()) announce(`User ${user}: ${$("user-count").textContent}.`);
  }

  close() {
    clearTimeout(this.#timer);
    this.#tail.stop();
    this.#user = null;
    $("user").hidden = true;
    window.history.replaceState(null, "", location.pathname + location.search);
  }

  /** Removes everything that was shown. */
  forget() {
    this.close();
    $("user-rows").replaceChildren();
    this.#tail.switchTo("");
    $("lookup-user").value = "";
  }

  /** Shows whether the hub allows tails. */
  allowTail(allowed) {
    this.#tail.allow(allowed);
  }

  async #look() {
    const user = this.#user;
    try {
      const { streams } = await askJSON(this.#path);
      if (user !== this.#user) return false;
      this.#show(streams);
      this.#timer = setTimeout(() => this.#look(), EVERY);
      return true;
    } catch (err) {
      if (user !== this.#user) return false;
      if (err instanceof Refused) {
        if (err.status === 401) this.#signedOut();
        else this.#fail(`Rejected by the hub: ${err.message}.`);
        return false;
      }
      setText($("user-count"), err.message);
      this.#timer = setTimeout(() => this.#look(), EVERY);
      return false;
    }
  }

  #show(streams) {
    $("user-buttons").hidden = false;
    $("user-tail").hidden = false;
    $("user-table").hidden = streams.length === 0;
    setText($("user-count"), streams.length ? `${plural(streams.length, "open stream")} on this hub` : "no open streams on this hub");
    $("user-rows").replaceChildren(...streams.toSorted((a, b) => a.since < b.since ? -1 : 1).map(streamRow));
  }

  #fail(sentence) {
    setText($("user-count"), sentence);
    announce(sentence);
    $("user-table").hidden = $("user-buttons").hidden = $("user-tail").hidden = true;
  }

  async #disconnect() {
    const result = $("user-result");
    result.className = "result";
    try {
      const { heard: hubs, id } = await askJSON(this.#path, "DELETE");
      setText(result, id ? `Command appended as entry ${id}. Every hub that reads it closes this user's streams.`
        : hubs ? `Command sent to ${plural(hubs, "hub")}, which ${hubs === 1 ? "closes" : "close"} this user's streams. Browsers then reconnect and are authenticated again.`
          : "The command did not reach any hub.");
    } catch (err) {
      result.classList.add("bad");
      setText(result, `Not disconnected: ${err.message}.`);
    }
  }
}

function streamRow(stream) {
  const row = element("tr");
  const age = (Date.now() - Date.parse(stream.since)) / 1000;
  const topics = stream.topics ? stream.topics.map(t => t || "(no topic)").join(", ") : "all";
  const queue = stream.queued_frames || stream.queued_bytes ? `${count(stream.queued_frames)}, ${bytes(stream.queued_bytes)}` : "empty";
  for (const [label, text, kind] of [
    ["Age", lasting(age)], ["Topics", topics], ["Queue", queue], ["Last id", stream.last_id, "code"],
  ]) {
    const cell = element("td");
    cell.dataset.label = label;
    cell.append(kind ? element(kind, "", text) : text);
    row.append(cell);
  }
  return row;
}
