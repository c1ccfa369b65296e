// Asking the hub, with the token if there is one.

const KEY = "usercast-admin-token";
const PATIENCE = 8_000; // ms; the hub itself waits 5 s for Redis

// A browser that blocks cookies throws when storage is accessed. The token then lives as long as the page.
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

// The token lives as long as the tab. It is this origin's alone, unlike a cookie, which
// goes to every port of the host.
export const token = {
  get: () => store.getItem(KEY),
  set: value => store.setItem(KEY, value),
  forget: () => store.removeItem(KEY),
};

/** The hub refuses: message is its own sentence. */
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
    } catch { // no header can hold it, so it is none
      throw new Refused(401, "no token can hold such characters");
    }
  }
  const answer = await fetch(path, { method, headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  let sentence = `the hub answers with status ${answer.status}`;
  try {
    sentence = (await answer.json()).error ?? sentence;
  } catch { /* something between here and the hub has answered */ }
  throw new Refused(answer.status, sentence);
}

/** Asks for JSON. The error's message is a sentence for people. */
export async function askJSON(path, method) {
  try {
    return await (await ask(path, { method, signal: AbortSignal.timeout(PATIENCE) })).json();
  } catch (err) {
    if (err instanceof Refused) throw err;
    throw new Error("the hub does not answer");
  }
}

/**
 * Follows a stream of events until it ends or signal aborts; EventSource cannot send a
 * token. on is called with each event's name and data, opened once the hub has
 * answered. It throws Refused, or what broke the stream.
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

/** The path of a user's API, or null for one that a browser cannot ask for. */
export function userPath(user) {
  // A URL's "." and ".." are directories, however they are escaped.
  return user === "." || user === ".." ? null : `api/users/${encodeURIComponent(user)}`;
}
