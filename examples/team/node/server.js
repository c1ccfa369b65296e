// A small team chat: messages to a team, its members that are online, and a push for those that are not. Node without a framework.
const http = require("node:http");
const fs = require("node:fs");
const path = require("node:path");
const crypto = require("node:crypto");
const { createClient } = require("redis");

const url = process.env.REDIS_URL || "redis://127.0.0.1:6379";
const redis = createClient({ url, disableOfflineQueue: true });
const subscriber = createClient({ url }); // a connection with a subscription cannot send other commands
for (const client of [redis, subscriber]) client.on("error", err => console.error("redis:", err.message));

// withTimeout resolves to the result of a command, or to failed after an error or a second. It never rejects.
async function withTimeout(command, failed) {
  const result = command.catch(err => {
    console.error("usercast:", err.message);
    return failed;
  });
  let timer;
  const late = new Promise(resolve => { timer = setTimeout(resolve, 1000, failed); });
  return Promise.race([result, late]).finally(() => clearTimeout(timer));
}

// publish resolves to true if Redis has received the message.
const publish = (channel, message) => withTimeout(redis.publish(channel, JSON.stringify(message)).then(() => true), false);

// online resolves to the names that are online. If Redis is unavailable, the result is empty.
async function online(names) {
  if (names.length === 0) return []; // Redis would return an error
  const until = await withTimeout(redis.zmScore("usercast:user-online", names), []); // needs Redis 6.2
  const now = Date.now() / 1000;
  return names.filter((_, i) => until[i] >= now);
}

const page = fs.readFileSync(path.join(__dirname, "page.html"));
const sessions = new Map(); // session id -> user; in your app, a database
const teams = new Map();    // user -> team
const valid = /^[a-z0-9]{1,32}$/;
const members = team => [...teams.keys()].filter(user => teams.get(user) === team).sort();

function push(user, text) { // a real app calls its push service here
  console.log(`push to ${user}: ${text}`);
}

// With HTTPS, add "; Secure".
const cookie = (value, maxAge) => `session=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${maxAge}`;

function sessionOf(request) {
  return /(?:^|;\s*)session=([0-9a-f]+)/.exec(request.headers.cookie || "")?.[1];
}

async function form(request) {
  let body = "";
  for await (const chunk of request) {
    body += chunk;
    if (body.length > 10000) throw new Error("the form is too long");
  }
  return Object.fromEntries(new URLSearchParams(body));
}

const routes = {
  "GET /": (request, answer) => answer.setHeader("Content-Type", "text/html; charset=utf-8").end(page),

  // The session check: the user, and the groups of which the user is a member.
  "GET /usercast/session": (request, answer, user) => {
    if (!user) return answer.writeHead(401).end();
    answer.setHeader("X-User-ID", user).setHeader("X-User-Groups", `team-${teams.get(user)}`).end();
  },

  "POST /login": async (request, answer) => {
    const { name = "", team = "" } = await form(request); // a real app checks a password here
    if (!valid.test(name) || !valid.test(team)) return answer.writeHead(400).end();
    const moved = teams.has(name) && teams.get(name) !== team;
    teams.set(name, team);
    const id = crypto.randomBytes(16).toString("hex");
    sessions.set(id, name);
    // The groups of an open stream do not change: end it, so that the page reconnects as a member of the new team.
    if (moved) await publish("usercast:user-control", { op: "disconnect", user: name });
    answer.setHeader("Set-Cookie", cookie(id, 86400)).writeHead(204).end();
  },

  // The state of the page: who belongs to the team, and who of them is online.
  "GET /team": async (request, answer, user) => {
    if (!user) return answer.writeHead(401).end();
    const names = members(teams.get(user));
    const there = await online(names);
    const list = names.map(name => ({ name, online: there.includes(name) }));
    answer.setHeader("Content-Type", "application/json").end(JSON.stringify({ team: teams.get(user), members: list }));
  },

  // One PUBLISH reaches the team. Members that are offline get a push.
  "POST /messages": async (request, answer, user) => {
    const { text = "" } = await form(request);
    if (!user) return answer.writeHead(401).end();
    const published = await publish(`group-team-${teams.get(user)}:chat`, { from: user, text });
    const others = members(teams.get(user)).filter(name => name !== user);
    const there = await online(others);
    for (const name of others) if (!there.includes(name)) push(name, `${user}: ${text}`);
    answer.writeHead(published ? 204 : 503).end(); // a real app has stored the message and answers 204
  },

  // Delete the session first: the browser reconnects after the command, and then gets 401.
  "POST /logout": async (request, answer, user) => {
    sessions.delete(sessionOf(request));
    if (user) await publish("usercast:user-control", { op: "disconnect", user });
    answer.setHeader("Set-Cookie", cookie("", 0)).writeHead(204).end();
  },
};

// Notify the team when a member comes online or goes offline. In a real app, exactly one process does this.
subscriber.subscribe("usercast:user-presence", message => {
  const { user, online } = JSON.parse(message);
  if (teams.has(user)) publish(`group-team-${teams.get(user)}:presence`, { user, online });
}).catch(err => console.error("redis:", err.message));
// After an outage of one of the connections, changes may have been missed: let all pages load the team again.
for (const client of [redis, subscriber]) client.on("ready", () => {
  for (const team of new Set(teams.values())) publish(`group-team-${team}:presence`, { reload: true });
});

const server = http.createServer(async (request, answer) => {
  const route = routes[`${request.method} ${request.url.split("?")[0]}`];
  if (!route) return answer.writeHead(404).end();
  try {
    await route(request, answer, sessions.get(sessionOf(request)));
  } catch (err) {
    console.error(err);
    answer.headersSent ? answer.destroy() : answer.writeHead(500).end();
  }
});

const port = Number(process.env.PORT || 3000);
for (const client of [redis, subscriber]) client.connect().catch(() => {}); // the listeners above log errors; the client retries
server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/`));
