// Connects the parts of the page, and receives the statistics of the hub.

import { Banners } from "./banners.js";
import { $, announce, setText } from "./dom.js";
import { showFleet } from "./fleet.js";
import { History, SPAN } from "./history.js";
import { follow, Refused } from "./hub.js";
import { Overview } from "./overview.js";
import { SignIn } from "./signin.js";
import { showFeeds, showReasons } from "./tables.js";
import { UserPanel } from "./user.js";

const RETRY = 1000; // ms, ±25 %
const STATES = { live: "live", lost: "disconnected" }; // texts of data-state
const SILENT = 5000; // ms without an event after which the connection counts as lost; the hub sends one per second

const past = new History();
const overview = new Overview();
const banners = new Banners();
const signIn = new SignIn(() => connect());
const user = new UserPanel(() => leave());

let abort = null; // aborts the open stream
let latest = null; // the latest statistics
let seenAt = 0; // when they arrived, in Unix seconds
let lostAt = 0; // when the connection was lost; 0 if it is open
let why = ""; // why the hub rejected the console
let paused = false;
const downSince = new Map(); // Redis → when this page first saw that it is unavailable

const now = () => Date.now() / 1000;

async function connect() {
  disconnect();
  const { signal } = abort = new AbortController();
  while (!signal.aborted) {
    const attempt = new AbortController();
    const stop = () => attempt.abort();
    signal.addEventListener("abort", stop);
    let watch = setTimeout(stop, SILENT);
    why = "";
    try {
      await follow("api/stats", attempt.signal, (name, stats) => {
        clearTimeout(watch);
        watch = setTimeout(stop, SILENT);
        receive(stats);
      });
    } catch (err) {
      if (signal.aborted) return;
      if (err instanceof Refused) {
        if (err.status === 401) {
          leave();
          return;
        }
        why = err.message;
      }
    } finally {
      clearTimeout(watch);
      signal.removeEventListener("abort", stop);
    }
    if (signal.aborted) return;
    lose();
    await new Promise(done => setTimeout(done, RETRY * (0.75 + Math.random() / 2)));
  }
}

function disconnect() {
  abort?.abort();
  abort = null;
}

// The token is wrong or missing.
function leave() {
  disconnect();
  user.forget();
  banners.show([]);
  signIn.ask();
}

function receive(stats) {
  latest = stats;
  seenAt = now();
  lostAt = 0;
  signIn.done();
  past.add(seenAt, stats);
  for (const feed of stats.feeds) {
    if (feed.connected) downSince.delete(feed.redis);
    else if (!downSince.has(feed.redis)) downSince.set(feed.redis, seenAt);
  }
  setState("live");
  showBanners();
  user.allowTail(stats.console_tail);
  user.allowGroups(stats.groups_enabled);
  if (!paused) show();
}

function show() {
  if (!latest) return;
  overview.show(past, latest);
  showReasons(past, latest);
  showFeeds(latest);
  showFleet(latest);
}

function lose() {
  if (!lostAt) {
    lostAt = seenAt || now();
    past.lose(now());
  }
  if (document.body.dataset.view === "start") document.body.dataset.view = "console";
  setState("lost");
  showBanners();
}

function setState(state) {
  document.body.dataset.state = state;
  setText($("state"), paused && state === "live" ? "paused" : STATES[state]);
}

function showBanners() {
  const list = [];
  if (lostAt) {
    const [text, timer] = why ? [`The hub rejected the console: ${why}.`, "Retrying for"]
      : ["Connection to the hub lost, reconnecting.", "Disconnected for"];
    list.push({ key: `lost ${why}`, tone: "bad", text, timer, since: lostAt });
  } else {
    if (latest.draining) list.push({ key: "draining", tone: "wait", text: "The hub is shutting down. It closes its streams, and clients reconnect." });
    for (const feed of latest.feeds.filter(f => !f.connected)) {
      const later = feed.feed === "stream" ? "messages" : "a gap";
      const [text, timer] = latest.ready || latest.draining
        ? [`Redis ${feed.redis} is unavailable. Streams stay open and receive ${later} when it is back.`, "Down for at least"]
        : [`The hub has not connected to Redis ${feed.redis} yet.`, "Waiting for at least"];
      list.push({ key: `down ${feed.redis}`, tone: "bad", text, timer, since: downSince.get(feed.redis) });
    }
    const { max_clients: most } = latest.limits;
    if (most > 0 && latest.clients >= most) list.push({ key: "full", tone: "bad", text: "The hub is at capacity: new clients are rejected temporarily." });
  }
  banners.show(list);
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  setText($("pause"), paused ? "Resume" : "Pause");
  setState(lostAt ? "lost" : "live");
  announce(paused ? "Updates paused." : "Updates resumed.");
  if (!paused) show();
});

setText($("where"), location.host);
setText($("span"), `${SPAN / 60} minutes`);
setInterval(() => banners.tick(), 1000);
connect();
user.openFromAddress();
