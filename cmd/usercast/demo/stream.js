// A native EventSource, and the events that it passes to the page.

// Even with event=topic, the hub sends topics with these names as the event message,
// because the names have another meaning in an event stream.
const RESERVED = new Set(["open", "error", "message", "gap", "busy", "bye", "ping"]);

/** Events about the stream itself, with a reason. */
const SIGNS = ["gap", "bye", "busy"];

/** Returns the URL of a stream. Pings are events, because pages do not receive comments. */
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
   * and ping(id). The topic is undefined if the stream does not contain it.
   */
  constructor(url, topics, on) {
    const source = this.#source = new EventSource(url);
    const unnamed = topics.filter(topic => RESERVED.has(topic));
    const only = unnamed.length === 1 ? unnamed[0] : undefined;

    source.onopen = () => on.state("open");
    source.onerror = () => {
      // After a status other than 200, the EventSource is closed permanently; otherwise, it reconnects.
      on.state(source.readyState === EventSource.CLOSED ? "refused" : "reconnecting");
    };
    source.onmessage = e => on.message(e.lastEventId, only, e.data);
    // An EventSource drops events without a listener for their name. The URL therefore
    // requests events named by topic only together with a list of topics.
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
 * Returns why the hub rejected the stream permanently. EventSource does not expose the
 * status or the body of the response, so this sends the request once more.
 */
export async function whyRefused(url) {
  const abort = new AbortController();
  try {
    const answer = await fetch(url, { signal: abort.signal, cache: "no-store" });
    if (answer.ok) return "The stream was closed permanently, but the hub would accept it now: reopen it.";
    const { error } = await answer.json();
    return `The hub rejected this stream: ${error ?? `status ${answer.status}`}.`;
  } catch {
    return "The hub is unreachable.";
  } finally {
    abort.abort(); // a stream does not end
  }
}

function reasonOf(data) {
  try {
    return String(JSON.parse(data).reason);
  } catch {
    return data;
  }
}
