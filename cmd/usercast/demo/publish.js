// The form to publish messages.

const BURST = 100;
const TIMEOUT = 8_000; // ms
const UNSUBSCRIBED = "The hub is not subscribed to Redis at the moment.";

export class Publisher {
  #prefix;
  #separator;
  #ledger;
  #form;
  #result = document.getElementById("result");
  #buttons;

  constructor(form, prefix, separator, ledger) {
    this.#prefix = prefix;
    this.#separator = separator;
    this.#ledger = ledger;
    this.#form = form;
    this.#buttons = form.querySelectorAll(".buttons button");
    form.addEventListener("submit", e => {
      e.preventDefault();
      this.#publish();
    });
    form.addEventListener("keydown", e => {
      if (e.key === "Enter" && (e.ctrlKey || e.metaKey)) {
        e.preventDefault();
        form.requestSubmit();
      }
    });
    form.addEventListener("input", () => this.#showChannel());
    form.querySelector("#burst").addEventListener("click", () => this.#burst());
    for (const target of form.querySelectorAll(".target")) {
      target.addEventListener("click", () => {
        this.#user.value = target.value;
        this.#showChannel();
      });
    }
    this.#showChannel();
  }

  /** Sets the user of a target button to the user of a panel. */
  offer(panelKey, user) {
    const target = this.#form.querySelector(`.target[data-panel="${panelKey}"]`);
    target.value = target.textContent = user;
    target.hidden = user === "" || user.includes(this.#separator) || user === "*";
    this.#showChannel();
  }

  get #user() {
    return this.#form.elements.user;
  }

  #message() {
    const { user, topic, payload } = this.#form.elements;
    return { user: user.value, topic: topic.value, payload: payload.value };
  }

  #showChannel() {
    const { user, topic } = this.#message();
    if (this.#user.ariaInvalid && !faultOf(user, this.#separator)) {
      this.#user.ariaInvalid = null;
      this.#say("", true);
    }
    document.getElementById("channel").textContent = this.#prefix + user + (topic && this.#separator + topic);
    for (const target of this.#form.querySelectorAll(".target")) {
      target.setAttribute("aria-pressed", String(target.value === user));
    }
  }

  // Removes the previous result. Shows a fault of the user id, if there is one.
  #valid() {
    const fault = faultOf(this.#user.value, this.#separator);
    this.#user.ariaInvalid = fault ? "true" : null;
    this.#say(fault, !fault);
    if (fault) this.#user.focus();
    return !fault;
  }

  async #publish() {
    if (!this.#valid()) return;
    const message = this.#message();
    try {
      const receivers = await this.#send(message);
      this.#say(receivers ? `${hubs(receivers)} received the message.` : `No hub received the message. ${UNSUBSCRIBED}`, receivers > 0);
    } catch (err) {
      this.#say(err.message, false);
    }
  }

  // Publishes sequentially: concurrent requests can reach Redis in another order, which
  // would look as if the stream had changed the order.
  async #burst() {
    if (!this.#valid()) return;
    const message = this.#message();
    const began = performance.now();
    this.#busy(true);
    try {
      let fewest = Infinity;
      for (let n = 1; n <= BURST; n++) {
        fewest = Math.min(fewest, await this.#send({ ...message, payload: numbered(message.payload, n) }));
      }
      const took = Math.round(performance.now() - began);
      const received = fewest ? `${hubs(fewest)} received each of them.` : `At least one of them did not reach any hub. ${UNSUBSCRIBED}`;
      this.#say(`Published ${BURST} messages in ${took} ms. ${received}`, fewest > 0);
    } catch (err) {
      this.#say(err.message, false);
    } finally {
      this.#busy(false);
    }
  }

  /** Publishes one message. The message of an error can be shown to users. */
  async #send(message) {
    const publication = this.#ledger.note(message.user, message.topic, message.payload);
    try {
      return await post(message);
    } catch (err) {
      this.#ledger.forget(publication);
      throw err;
    }
  }

  #busy(busy) {
    for (const button of this.#buttons) button.disabled = busy;
  }

  #say(text, fine) {
    this.#result.textContent = text;
    this.#result.classList.toggle("bad", !fine);
  }
}

async function post(message) {
  let answer, body;
  try {
    answer = await fetch("/publish", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(message),
      signal: AbortSignal.timeout(TIMEOUT),
    });
    body = await answer.json();
  } catch (err) {
    if (err.name === "TimeoutError") {
      throw new Error("No response yet. Over HTTP/1.1, browsers open at most six connections to one host: close other tabs of this page.");
    }
    throw new Error("The hub does not respond. Check that it is still running.");
  }
  if (!answer.ok) throw new Error(`Not published: ${body.error}.`);
  return body.receivers;
}

function hubs(n) {
  return n === 1 ? "1 hub" : `${n} hubs`;
}

// faultOf returns a sentence about an invalid user id, or "".
function faultOf(user, separator) {
  if (user === "") return "Enter a user id, or * for all users.";
  if (user.includes(separator)) return `A user id must not contain ${separator}. Enter the topic in its own field.`;
  return "";
}

// numbered adds a number to a payload that is a JSON object, to show the order in which a
// burst arrives. It changes only the end of the text: serializing the parsed JSON would
// change numbers that JavaScript cannot represent.
function numbered(payload, n) {
  try {
    const value = JSON.parse(payload);
    if (typeof value !== "object" || value === null || Array.isArray(value)) return payload;
    const comma = Object.keys(value).length ? "," : "";
    return payload.replace(/\}\s*$/, `${comma}"n":${n}}`);
  } catch {
    return payload;
  }
}
