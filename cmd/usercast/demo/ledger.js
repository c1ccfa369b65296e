// The messages that this page published recently, so that a panel can show the latency
// and the topic of a message that arrives.
//
// Messages do not contain their publisher. They are matched by user and payload, and
// equal messages by their order, because a stream keeps the order of Redis.

const MAX_AGE = 30_000; // ms; a message that has not arrived by then is not expected any more

export class Ledger {
  #byPayload = new Map(); // payload → publications, oldest first

  /** Records a message that is about to be published. Returns the record, for forget. */
  note(user, topic, payload) {
    const publication = { user, topic, key: asReceived(payload), at: performance.now(), seenBy: new Set() };
    this.#prune(publication.at);
    const equals = this.#byPayload.get(publication.key);
    if (equals) equals.push(publication);
    else this.#byPayload.set(publication.key, [publication]);
    return publication;
  }

  /** Deletes the record of a message whose publication failed. */
  forget(publication) {
    const left = (this.#byPayload.get(publication.key) ?? []).filter(p => p !== publication);
    if (left.length) this.#byPayload.set(publication.key, left);
    else this.#byPayload.delete(publication.key);
  }

  /**
   * Returns the record of a received message, or undefined. Each panel matches a record
   * once. The topic is undefined if the stream does not contain it. since is when the
   * panel opened the stream of this user.
   */
  match(panel, user, topic, data, since) {
    const equals = this.#byPayload.get(data);
    const found = equals?.find(p =>
      (p.user === user || p.user === "*") && (topic === undefined || p.topic === topic) &&
      p.at >= since && !p.seenBy.has(panel));
    found?.seenBy.add(panel);
    return found;
  }

  #prune(now) {
    // A Map iterates in the order of insertion, so the oldest records come first.
    for (const [key, equals] of this.#byPayload) {
      const left = equals.filter(p => now - p.at < MAX_AGE);
      if (left.length === equals.length) return;
      if (left.length) this.#byPayload.set(key, left);
      else this.#byPayload.delete(key);
    }
  }
}

// asReceived returns the payload as event.data will contain it: the line ends in a stream
// are LF, and its text is UTF-8.
function asReceived(payload) {
  return payload.replace(/\r\n?/g, "\n").toWellFormed();
}
