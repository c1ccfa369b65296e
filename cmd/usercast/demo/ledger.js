// What this page has published lately, so that a panel that sees it arrive can
// say how long it took, and on which topic it was sent.
//
// A message carries nothing that marks it as ours. It is recognised by user and
// payload, and equal ones by their order: a stream keeps the order of Redis.

const MAX_AGE = 30_000; // ms; past it nobody has a stream for the message

export class Ledger {
  #byPayload = new Map(); // payload → publications, oldest first

  /** Notes a publication that begins now. Returns it, for forget. */
  note(user, topic, payload) {
    const publication = { user, topic, key: asReceived(payload), at: performance.now(), seenBy: new Set() };
    this.#prune(publication.at);
    const equals = this.#byPayload.get(publication.key);
    if (equals) equals.push(publication);
    else this.#byPayload.set(publication.key, [publication]);
    return publication;
  }

  /** Forgets a publication that failed. */
  forget(publication) {
    const left = (this.#byPayload.get(publication.key) ?? []).filter(p => p !== publication);
    if (left.length) this.#byPayload.set(publication.key, left);
    else this.#byPayload.delete(publication.key);
  }

  /**
   * The publication that a message is, or undefined. Each panel meets each of them
   * once. The topic is undefined when the stream did not tell it; since is when
   * the panel began to listen to this user.
   */
  meet(panel, user, topic, data, since) {
    const equals = this.#byPayload.get(data);
    const found = equals?.find(p =>
      (p.user === user || p.user === "*") && (topic === undefined || p.topic === topic) &&
      p.at >= since && !p.seenBy.has(panel));
    found?.seenBy.add(panel);
    return found;
  }

  #prune(now) {
    // A Map keeps the order of insertion, so the oldest are met first.
    for (const [key, equals] of this.#byPayload) {
      const left = equals.filter(p => now - p.at < MAX_AGE);
      if (left.length === equals.length) return;
      if (left.length) this.#byPayload.set(key, left);
      else this.#byPayload.delete(key);
    }
  }
}

// asReceived is the payload as event.data will have it: a stream's line ends are
// LF, and its text is UTF-8.
function asReceived(payload) {
  return payload.replace(/\r\n?/g, "\n").toWellFormed();
}
