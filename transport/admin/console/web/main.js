// Wires the page, and keeps the stream of what the hub says about itself.

import { Banners } from "./banners.js";
import { $, announce, setText } from "./dom.js";
import { History, SPAN } from "./history.js";
import { follow, Refused } from "./hub.js";
import { Overview } from "./overview.js";
import { SignIn } from "./signin.js";
import { showFeeds, showReasons } from "./tables.js";
import { UserPanel } from "./user.js";

const COME_BACK = 1000; // ms, ±25 %
const SILENT = 5000; // ms without a word, and the hub counts as lost: it says something each second

const past = new History();
const overview = new Overview();
const banners = new Banners();
const signIn = new SignIn(() => connect());
const user = new UserPanel(() => leave());

let abort = null; // of the stream that is open
let latest = null; // what the hub said last
let seenAt = 0; // when that was, in Unix seconds
let lostAt = 0; // 0: the hub is here
let why = ""; // the hub refuses
let paused = false;
const awaySince = new Map(); // Redis → when this page saw that it is away

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
        hear(stats);
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
    await new Promise(done => setTimeout(done, COME_BACK * (0.75 + Math.random() / 2)));
  }
}

function disconnect() {
  abort?.abort();
  abort = null;
}

// The token is wrong, or there is none.
function leave() {
  disconnect();
  user.forget();
  banners.show([]);
  signIn.ask();
}

function hear(stats) {
  latest = stats;
  seenAt = now();
  lostAt = 0;
  signIn.done();
  past.add(seenAt, stats);
  for (const feed of stats.feeds) {
    if (feed.connected) awaySince.delete(feed.redis);
    else if (!awaySince.has(feed.redis)) awaySince.set(feed.redis, seenAt);
  }
  setState("live");
  showBanners();
  user.allowTail(stats.console_tail);
  if (!paused) show();
}

function show() {
  if (!latest) return;
  overview.show(past, latest);
  showReasons(past, latest);
  showFeeds(latest);
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
  setText($("state"), paused && state === "live" ? "paused" : state);
}

function showBanners() {
  const list = [];
  if (lostAt) {
    const text = why ? `The hub does not let the console listen: ${why}. Trying again,`
      : "The console has lost the hub, and tries again. Not seen";
    list.push({ key: `lost ${why}`, tone: "bad", text, since: lostAt });
  } else {
    if (latest.draining) list.push({ key: "draining", tone: "wait", text: "The hub is stopping: its streams are sent elsewhere." });
    for (const feed of latest.feeds.filter(f => !f.connected)) {
      const text = latest.ready || latest.draining ? `Redis ${feed.redis} is away. Streams stay open, and hear of the gap when it is back. Away`
        : `The hub has not reached Redis ${feed.redis} yet. Waiting`;
      list.push({ key: `away ${feed.redis}`, tone: "bad", text, since: awaySince.get(feed.redis) });
    }
    const { max_clients: most } = latest.limits;
    if (most > 0 && latest.clients >= most) list.push({ key: "full", tone: "bad", text: "The hub is full: who comes now is told to come back later." });
  }
  banners.show(list);
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  setState(lostAt ? "lost" : "live");
  announce(paused ? "Figures and charts stand still." : "Figures and charts go on.");
  if (!paused) show();
});

setText($("where"), location.host);
setText($("span"), `${SPAN / 60} minutes`);
setInterval(() => banners.tick(), 1000);
connect();
user.openFromAddress();
