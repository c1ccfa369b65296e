// usercast: one event stream for all tabs; see README.md. MIT license.

// Topics that are not event names.
const RESERVED = ["", "open", "error", "message", "gap", "busy", "bye", "ping"];

const TICK = 250; // ms between timer checks
const ALIVE = 200; // ms after which a tab asks for a leader
const PATIENCE = 400; // ms in which it must respond
const SETTLE = 100; // ms in which a new stream can be "busy"
const LONGEST_WAIT = 60_000;
const SEEN = 2000; // keys per tab
const KEPT = 1 << 20; // characters that a tab keeps for frozen tabs

const now = () => performance.now();
const report = error => queueMicrotask(() => { throw error; }); // to window.onerror
const reasonOf = event => JSON.parse(event.data).reason;

export function connect(url, { topics: only = [], withCredentials = false, token, share = true, silence, retry = 3000 } = {}) {
  const topics = [].concat(only);
  const unnamed = topics.filter(topic => RESERVED.includes(topic) || /[\r\n\0]/.test(topic));
  if (unnamed.length > 1) throw new TypeError(`usercast: topics ${JSON.stringify(unnamed)} share an event name; use only one`);
  const address = new URL(url, document.baseURI);
  const query = address.searchParams;
  for (const topic of topics) query.append("topic", topic);
  if (topics.length) query.set("event", "topic");
  query.set("ping", "event");

  const me = Math.random().toString(36);
  const name = `usercast 1 ${JSON.stringify([share, withCredentials, address.href])}`;
  let shared = share && navigator.locks;

  // The state and the listeners of the page.
  const messages = new Set(), gaps = new Set(), states = new Set();
  let state = "connecting", why, isReady;
  const ready = new Promise(resolve => isReady = resolve);

  // Messages and gaps in this tab: each has a key and that of its predecessor; head is the newest.
  let head = me, last = "", joined, count = 0, size = 0;
  const seen = new Set([head]), kept = [];

  // The tabs: the lock holder leads; messages of an older term are ignored.
  let term = 0, leading, away = true, behind, alive, asked, channel, bid, ticker;

  // The leader's EventSource.
  let source, attempt = 0, noID, settles, active, due, reason, fails = 0, interval = 15_000;

  const call = (set, ...args) => {
    for (const fn of [...set]) {
      try {
        if (set.has(fn)) fn(...args);
      } catch (error) {
        report(error);
      }
    }
  };

  const add = (set, fn, topic) => {
    if (typeof fn !== "function") throw new TypeError("usercast: the listener is not a function");
    const own = (what, more) => topic !== undefined && more.topic !== topic || fn(what, more);
    set.add(own);
    return () => set.delete(own);
  };

  const post = (is, more) => channel?.postMessage({ is, ...more });
  const say = more => post("state", { term, state, why, head, last, ...more });

  const become = (next, because) => {
    if (state === next && why === because) return;
    state = next;
    why = because;
    if (leading) say();
    if (state === "open") isReady();
    call(states, state, why);
  };

  const remember = key => {
    seen.add(head = key);
    if (seen.size > SEEN) seen.delete(seen.values().next().value);
  };

  const accept = entry => {
    const { key, id, topic, data, gap } = entry;
    kept.push({ ...entry, prev: head });
    for (size += data.length; size > KEPT || kept.length > SEEN;) size -= kept.shift().data.length;
    remember(key);
    last = id || last;
    gap ? call(gaps, gap) : call(messages, data, { data, topic, id });
  };

  // Posts first, because listeners can block. Two gaps can have the same id.
  const publish = (data, id, topic, gap) => {
    const key = !gap && id || `${me} ${++count}`;
    if (seen.has(key)) return;
    const entry = { key, prev: head, id, topic, data, gap };
    post("entry", { term, ...entry });
    accept(entry);
  };

  const shut = () => {
    attempt++;
    source?.close();
    source = settles = due = undefined;
  };

  const open = async because => {
    shut();
    const mine = attempt;
    const target = new URL(address);
    noID = !last;
    if (last) target.searchParams.set("last-event-id", last);
    active = now();
    become("connecting", because);
    try {
      const fresh = await token?.();
      if (fresh) target.searchParams.set("token", fresh);
      if (mine === attempt) listen(new EventSource(target, { withCredentials }));
    } catch (error) {
      report(error);
      if (mine === attempt) later("token");
    }
  };

  const later = because => {
    shut();
    due = now() + Math.min(retry * 2 ** fails++, LONGEST_WAIT) * (0.5 + Math.random());
    become("waiting", because);
  };

  // The stream is open and not busy. Without an id, messages may be missing.
  const settled = () => {
    settles = reason = undefined;
    fails = 0;
    if (noID && joined) publish("", "", undefined, "unknown-id");
    noID = false;
    joined = true;
    become("open");
  };

  const listen = es => {
    source = es;
    const on = (type, fn) => es.addEventListener(type, event => {
      if (source !== es) return es.close(); // WebKit reopens it
      const quiet = now() - active;
      active += quiet;
      fn(event, quiet);
    });
    const onEntry = (type, fn) => on(type, (event, quiet) => {
      if (state !== "open") settled();
      fn(event, quiet);
    });
    on("open", () => {
      settles = active + SETTLE;
      setTimeout(tick, SETTLE + 1);
    });
    on("error", () => {
      settles = undefined;
      if (es.readyState === EventSource.CLOSED) later("refused");
      else become("waiting", reason); // the browser reconnects automatically
      reason = undefined;
    });
    on("busy", event => {
      settles = undefined;
      noID ||= !last;
      reason = reasonOf(event);
    });
    on("bye", event => {
      last = event.lastEventId || last;
      reason = reasonOf(event);
      if (token && reason === "expired") later(reason); // the browser would send the old token
    });
    onEntry("ping", (event, quiet) => {
      if (quiet > 1000) interval = Math.max(quiet, interval / 2);
      last = event.lastEventId || last;
      say();
    });
    onEntry("gap", event => publish("", event.lastEventId, undefined, reasonOf(event)));
    for (const topic of topics.length ? topics : [undefined]) {
      const type = topic === undefined || unnamed.includes(topic) ? "message" : topic;
      onEntry(type, event => publish(event.data, event.lastEventId, topic));
    }
  };

  const lead = () => {
    leading = true;
    behind = false;
    term++;
    say();
    open();
  };

  // Aborting withdraws the request, or releases the lock.
  const campaign = steal => {
    bid?.abort();
    const { signal } = bid = new AbortController();
    navigator.locks.request(name, steal ? { steal } : { signal }, () => signal.aborted || new Promise(end => {
      signal.onabort = end;
      lead();
    })).catch(error => {
      if (signal.aborted) return;
      leave();
      if (error.name !== "AbortError") shared = false; // the page cannot use locks
      join(); // stolen: this tab did not respond
    });
  };

  const ask = from => {
    asked = now();
    post("ask", { me, from });
  };

  const catchUp = () => {
    if (!behind) ask(head);
    behind = true;
  };

  const answer = (to, from) => {
    const next = kept.findIndex(entry => from && entry.prev === from);
    say({ to, from, missed: from && from !== head && next < 0, entries: next < 0 ? [] : kept.slice(next) });
  };

  const receive = ({ data: m }) => {
    if (m.is === "ask") {
      if (!leading) return void (asked ||= now()); // all tabs receive the response
      tick(); // timers of hidden pages are late, messages are not
      return answer(m.me, m.from);
    }
    if (leading) { // the lock holder raises the term
      if (m.term >= term) {
        term = m.term + 1;
        say();
      }
      return;
    }
    if (m.term < term) return;
    if (m.term > term) behind = false;
    term = m.term;
    alive = now();
    asked = 0;
    if (m.is === "entry") {
      if (!joined || behind || seen.has(m.key)) return;
      return seen.has(m.prev) ? accept(m) : catchUp();
    }
    if (m.to === me && m.from) {
      behind = false;
      if (m.missed) accept({ key: Math.random(), data: "", gap: "history-expired" });
      for (const entry of m.entries) seen.has(entry.key) || accept(entry);
    } else if (joined && (behind || !seen.has(m.head))) {
      return catchUp();
    }
    if (!seen.has(m.head)) remember(m.head);
    joined = true;
    last = m.last;
    become(m.state, m.why);
  };

  const tick = () => {
    const t = now();
    if (leading) {
      // While the browser waits to reconnect, the hub sets the delay.
      const limit = (silence || 2 * interval + 2000) * (state === "waiting" ? 4 : 1);
      if (settles <= t) settled();
      else if (due <= t) open();
      else if (!due && t - active > limit) {
        interval = Math.min(2 * interval, 150_000); // perhaps pings are rarer
        open("silent");
      }
    } else if (asked) {
      if (t - asked > PATIENCE) campaign(true);
    } else if (t - alive > ALIVE) {
      ask();
    }
  };

  const join = () => {
    if (!away) return;
    away = false;
    become("connecting");
    ticker = setInterval(tick, TICK);
    try {
      if (shared) channel = new BroadcastChannel(name);
    } catch { /* blocked, like cookies */ }
    if (!channel) return lead();
    channel.onmessage = receive;
    ask(joined && head);
    campaign();
  };

  // A frozen or cached page can neither lead nor follow.
  const leave = () => {
    away = true;
    leading = false;
    clearInterval(ticker);
    shut();
    channel?.close();
    channel = undefined;
    bid?.abort();
  };

  const off = new AbortController();
  const at = (target, type, fn) => target.addEventListener(type, fn, off);
  at(window, "pagehide", leave);
  at(document, "freeze", leave);
  at(window, "pageshow", join);
  at(document, "resume", join);
  at(document, "visibilitychange", () => away || (leading && due ? open() : tick()));
  at(window, "online", () => leading && state !== "open" && open());
  join();

  return {
    get state() { return state; },
    ready,
    on(topic, fn) {
      if (typeof topic === "function") return add(messages, topic);
      if (!topics.includes(topic)) throw new TypeError(`usercast: topic ${JSON.stringify(topic)} is not in connect's topics`);
      return add(messages, fn, topic);
    },
    onGap: fn => add(gaps, fn),
    onState: fn => add(states, fn),
    close() {
      off.abort();
      leave();
      become("closed");
      for (const set of [messages, gaps, states]) set.clear();
    },
  };
}
