// usage: node client.mjs LIBRARY URL
//
// Opens a stream with one of the libraries of package.json. Prints one JSON line for each event that
// the library passes to its callback. Runs until it is killed.
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);
const [, , library, url] = process.argv;

const print = (type, data) => process.stdout.write(JSON.stringify({ type, data }) + "\n");

function listen(source) {
  for (const type of ["message", "gap", "busy", "bye", "ping"]) {
    source.addEventListener(type, event => print(type, event.data));
  }
  source.addEventListener("error", event => console.error("error", event?.status ?? event?.message, "readyState", source.readyState));
}

async function fetchEventSource() {
  // The library needs the globals of a page.
  globalThis.window = globalThis;
  globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
  const { fetchEventSource, EventStreamContentType } = await import("@microsoft/fetch-event-source");
  class Fatal extends Error {}
  await fetchEventSource(url, {
    openWhenHidden: true,
    async onopen(response) {
      if (response.ok && response.headers.get("content-type") === EventStreamContentType) return;
      if (response.status >= 400 && response.status < 500 && response.status !== 429) throw new Fatal("status " + response.status);
      throw new Error("status " + response.status);
    },
    onmessage(message) {
      if (message.data) print(message.event || "message", message.data); // the library also calls this at blank lines
    },
    onclose() {
      throw new Error("the stream has ended"); // otherwise, the library does not reconnect after a clean end
    },
    onerror(error) {
      console.error("error", error.message);
      if (error instanceof Fatal) throw error;
    },
  });
}

const libraries = {
  "eventsource@2": () => listen(new (require("eventsource2"))(url)),
  "eventsource@4": async () => listen(new (await import("eventsource4")).EventSource(url)),
  "eventsource@5": async () => listen(new (await import("eventsource")).EventSource(url)),
  "fetch-event-source": fetchEventSource,
  "event-source-polyfill": () => {
    const { EventSourcePolyfill } = require("event-source-polyfill");
    listen(new EventSourcePolyfill(url, { lastEventIdQueryParameterName: "last-event-id" }));
  },
  "launchdarkly-eventsource": () => {
    const { EventSource } = require("launchdarkly-eventsource");
    // Otherwise, Node's agent closes an idle connection after 5 s.
    listen(new EventSource(url, { readTimeoutMillis: 45_000 }));
  },
};

await libraries[library]();
setInterval(() => {}, 1 << 30); // keeps the process running if the library gives up
