// One native EventSource, and what it tells a page.

// The hub sends topics of these names to onmessage even when it was asked to use
// the topic as the event's name: they mean something else on a stream.
const RESERVED = new Set(["open", "error", "message", "gap", "busy", "bye", "ping"]);

/** What the hub says about the stream itself, with a reason. */
const SIGNS = ["gap", "bye", "busy"];

/** The stream's URL. Pings as events, else a page does not see them. */
export function streamURL(path, { user, topics, resume }) {
  const query = new URLSearchParams({ user });
  for (const topic of topics) query.append("topic", topic);
  if (topics.length) query.set("event", "topic");
  query.set("ping", "event");
  // A new EventSource cannot send the header Last-Event-ID.
  if (resume) query.set("last-event-id", resume);
  return `${path}?${query}`;
}

export class Stream {
  #source;

  /**
   * on has the methods state(word), message(id, topic, data), sign(name, reason, id)
   * and ping(id). A topic that the stream does not tell is undefined.
   */
  constructor(url, topics, on) {
    const source = this.#source = new EventSource(url);
    const unnamed = topics.filter(topic => RESERVED.has(topic));
    const only = unnamed.length === 1 ? unnamed[0] : undefined;

    source.onopen = () => on.state("open");
    source.onerror = () => {
      // Any status but 200 ends it for good; after all else it comes back.
      on.state(source.readyState === EventSource.CLOSED ? "refused" : "reconnecting");
    };
    source.onmessage = e => on.message(e.lastEventId, only, e.data);
    // A message of an unknown name would vanish, so names are asked for only
    // together with a filter: then no others come.
    for (const topic of topics) {
      if (!RESERVED.has(topic)) source.addEventListener(topic, e => on.message(e.lastEventId, topic, e.data));
    }
    for (const name of SIGNS) {
      source.addEventListener(name, e => on.sign(name, reasonOf(e.data), e.lastEventId));
    }
    source.addEventListener("ping", e => on.ping(e.lastEventId));
  }

  close() {
    this.#source.close();
  }
}

/**
 * Why the hub refuses this stream for good, in its own words. EventSource does
 * not tell a page the status, let alone the body, so this asks once more.
 */
export async function whyRefused(url) {
  const abort = new AbortController();
  try {
    const answer = await fetch(url, { signal: abort.signal, cache: "no-store" });
    if (answer.ok) return "The stream ended for good, but the hub would take it now: open it again.";
    const { error } = await answer.json();
    return `The hub refuses this stream: ${error ?? `status ${answer.status}`}.`;
  } catch {
    return "The hub cannot be reached.";
  } finally {
    abort.abort(); // a stream has no end
  }
}

function reasonOf(data) {
  try {
    return String(JSON.parse(data).reason);
  } catch {
    return data;
  }
}
