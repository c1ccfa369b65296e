// Requests to the hub's admin API, with the admin token if there is one.

const KEY = "usercast-admin-token";
const PATIENCE = 8_000; // ms; the hub itself waits up to 5 s for Redis

// If the browser blocks cookies, accessing sessionStorage throws. The token is then kept until the page is closed.
function memory() {
  let value = null;
  return { getItem: () => value, setItem: (_, given) => value = given, removeItem: () => value = null };
}

function storage() {
  try {
    return sessionStorage;
  } catch {
    return memory();
  }
}

const store = storage();

// The token is kept until the tab is closed. Unlike a cookie, which is sent to every port of the
// host, it is only accessible to this origin.
export const token = {
  get: () => store.getItem(KEY),
  set: value => store.setItem(KEY, value),
  forget: () => store.removeItem(KEY),
};

/** The hub rejected a request; message is the error text of the hub. */
export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function ask(path, { method = "GET", accept = "application/json", signal }) {
  const headers = new Headers({ Accept: accept });
  const secret = token.get();
  if (secret !== null) {
    try {
      headers.set("Authorization", `Bearer ${secret}`);
    } catch { // not a valid header value
      throw new Refused(401, "the token contains characters that are not allowed in a header");
    }
  }
  const answer = await fetch(path, { method, headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  let sentence = `unexpected status ${answer.status}`;
  try {
    sentence = (await answer.json()).error ?? sentence;
  } catch { /* the response is from a proxy */ }
  throw new Refused(answer.status, sentence);
}

/** Requests JSON. The message of an error can be shown to users. */
export async function askJSON(path, method) {
  try {
    return await (await ask(path, { method, signal: AbortSignal.timeout(PATIENCE) })).json();
  } catch (err) {
    if (err instanceof Refused) throw err;
    throw new Error("the hub does not respond");
  }
}

/**
 * Reads an event stream until it ends or signal aborts; EventSource cannot send a token.
 * It calls opened when the response begins, and on with the name and data of each event.
 * It throws Refused if the hub rejects the request, or the error that ended the stream.
 */
export async function follow(path, signal, on, opened = () => {}) {
  const answer = await ask(path, { accept: "text/event-stream", signal });
  opened();
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "", name = "message", data = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (text + value).split("\n"); // the hub ends lines with LF
    text = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) on(name, JSON.parse(data.join("\n")));
        name = "message";
        data = [];
      } else if (line.startsWith("data: ")) {
        data.push(line.slice(6));
      } else if (line.startsWith("event: ")) {
        name = line.slice(7);
      }
    }
  }
}

/** The API path of a user or group, or null if a browser cannot request it. */
export function pathOf(kind, name) {
  // Browsers resolve "." and ".." as relative path segments, even if they are percent-encoded.
  return name === "." || name === ".." ? null : `api/${kind}s/${encodeURIComponent(name)}`;
}
