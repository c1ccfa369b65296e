// The panel of one user or group: the open streams on this hub, and for a user the button that closes them.

import { $, announce, element, setText } from "./dom.js";
import { bytes, count, lasting, plural } from "./format.js";
import { askJSON, pathOf, Refused } from "./hub.js";
import { Tail } from "./tail.js";

const EVERY = 2000; // ms between requests

export class UserPanel {
  #kind = "user"; // or "group"
  #name = "";
  #path = "";
  #opened = 0; // changes when the panel is opened or closed; responses to earlier requests are ignored
  #groups = false; // whether the hub has groups
  #timer = 0; // of the next request
  #tail = new Tail();
  #signedOut; // called when the token is rejected

  constructor(signedOut) {
    this.#signedOut = signedOut;
    $("lookup").addEventListener("submit", e => {
      e.preventDefault();
      this.#ask(this.#groups ? $("lookup-kind").value : "user", $("lookup-user").value);
    });
    $("user-close").addEventListener("click", () => {
      this.close();
      $("lookup-user").focus();
    });
    $("user-disconnect").addEventListener("click", () => {
      setText($("confirm-user"), this.#name);
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

  /** Opens the user or group in the fragment of the URL, so that a lookup can be bookmarked and shared. */
  openFromAddress() {
    const [, kind, name] = location.hash.match(/^#(user|group)=(.*)$/s) ?? [];
    if (name === undefined) return;
    try {
      this.open(kind, decodeURIComponent(name));
    } catch { /* invalid percent-encoding */ }
  }

  #ask(kind, name) {
    const hash = hashOf(kind, name);
    if (location.hash === hash) this.open(kind, name);
    else location.hash = hash; // the hashchange listener opens it
  }

  async open(kind, name) {
    clearTimeout(this.#timer);
    this.#opened++;
    this.#kind = kind;
    this.#name = name;
    this.#path = pathOf(kind, name);
    $("confirm").close(); // it is for the previous user
    $("lookup-kind").value = kind;
    $("lookup-user").value = name;
    setText($("user-kind"), kind === "group" ? "Group" : "User");
    setText($("user-name"), name);
    setText($("user-result"), "");
    $("user").hidden = false;
    $("user-rows").replaceChildren();
    setText($("user-count"), "");
    this.#tail.switchTo(this.#path, kind);
    if (this.#path === null) {
      this.#fail("Browsers cannot request this name, because they treat it as a relative path. Use curl --path-as-is.");
      return;
    }
    if (await this.#look()) announce(`${kind === "group" ? "Group" : "User"} ${name}: ${$("user-count").textContent}.`);
  }

  close() {
    clearTimeout(this.#timer);
    this.#opened++;
    this.#tail.stop();
    $("user").hidden = true;
    window.history.replaceState(null, "", location.pathname + location.search);
  }

  /** Removes everything that was shown. */
  forget() {
    this.close();
    $("user-rows").replaceChildren();
    this.#tail.switchTo("", "user");
    $("lookup-user").value = "";
  }

  /** Shows whether the hub allows tails. */
  allowTail(allowed) {
    this.#tail.allow(allowed);
  }

  /** Shows whether the hub has groups. */
  allowGroups(allowed) {
    this.#groups = allowed;
    $("lookup-kind").hidden = !allowed;
    setText($("lookup-label"), allowed ? "Look up a" : "Look up a user");
    $("lookup-user").placeholder = allowed ? "user id or group name" : "user id";
  }

  async #look() {
    const opened = this.#opened;
    try {
      const { streams, total } = await askJSON(this.#path);
      if (opened !== this.#opened) return false;
      this.#show(streams, total ?? streams.length);
      this.#timer = setTimeout(() => this.#look(), EVERY);
      return true;
    } catch (err) {
      if (opened !== this.#opened) return false;
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

  #show(streams, total) {
    $("user-buttons").hidden = this.#kind === "group";
    $("user-tail").hidden = false;
    $("user-table").hidden = streams.length === 0;
    const listed = total > streams.length ? `, of which ${count(streams.length)} are listed` : "";
    setText($("user-count"), total ? `${plural(total, "open stream")} on this hub${listed}` : "no open streams on this hub");
    const columns = COLUMNS.filter(({ only }) => !only || (only === "group" ? this.#kind === "group" : this.#groups));
    $("user-head").replaceChildren(...columns.map(({ label }) => {
      const head = element("th", "", label);
      head.scope = "col";
      return head;
    }));
    showRows($("user-rows"), streams.toSorted((a, b) => a.since < b.since ? -1 : 1), columns);
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

// What the table shows of a stream: text, or names of users and groups to look up. The first column is for groups only, the
// one with groups for hubs that have them.
const COLUMNS = [
  { label: "User", only: "group", of: s => [["user", s.user]] },
  { label: "Age", of: s => lasting((Date.now() - Date.parse(s.since)) / 1000) },
  { label: "Topics", of: s => (s.topics ? s.topics.map(t => t || "(no topic)").join(", ") : "all") },
  { label: "Groups", only: "groups", of: s => s.groups?.map(name => ["group", name]) ?? "none" },
  { label: "Queue", of: s => (s.queued_frames || s.queued_bytes ? `${count(s.queued_frames)}, ${bytes(s.queued_bytes)}` : "empty") },
  { label: "Last id", of: s => s.last_id, kind: "code" },
];

// Only cells that have changed are replaced, because a link could have the focus.
function showRows(body, streams, columns) {
  if (body.rows[0]?.cells.length !== columns.length) body.replaceChildren();
  while (body.rows.length > streams.length) body.rows[body.rows.length - 1].remove();
  for (const [i, stream] of streams.entries()) {
    const row = body.rows[i] ?? body.insertRow();
    for (const [j, { label, of, kind = "span" }] of columns.entries()) {
      const cell = row.cells[j] ?? row.insertCell();
      const value = of(stream), key = JSON.stringify(value);
      if (cell.dataset.key === key) continue;
      cell.dataset.key = key;
      cell.dataset.label = label;
      cell.replaceChildren(typeof value === "string" ? element(kind, "", value) : linksTo(value));
    }
  }
}

const hashOf = (kind, name) => `#${kind}=${encodeURIComponent(name)}`;

function linksTo(recipients) {
  const list = element("span");
  for (const [i, [kind, name]] of recipients.entries()) {
    const link = element("a", "", name);
    link.href = hashOf(kind, name);
    list.append(i ? ", " : "", link);
  }
  return list;
}
