// A small app whose users log in and send each other messages: Node without a framework.
const http = require("node:http");
const fs = require("node:fs");
const path = require("node:path");
const crypto = require("node:crypto");
const { createClient } = require("redis");

const redis = createClient({ url: process.env.REDIS_URL || "redis://127.0.0.1:6379", disableOfflineQueue: true });
redis.on("error", err => console.error("redis:", err.message)); // without a listener, an error ends the process

// publish resolves to true if Redis has received the message, and to false if not within a second. It never rejects.
async function publish(channel, message) {
  const published = redis.publish(channel, JSON.stringify(message)).then(() => true, err => {
    console.error("usercast:", err.message);
    return false;
  });
  let timer;
  const late = new Promise(resolve => { timer = setTimeout(resolve, 1000, false); });
  return Promise.race([published, late]).finally(() => clearTimeout(timer));
}

const page = fs.readFileSync(path.join(__dirname, "page.html"));
const sessions = new Map(); // session id -> user; in your app, a database
const name = /^[a-z0-9]{1,32}$/;

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

  // The session check: the hub sends it with the browser's cookies.
  "GET /usercast/session": (request, answer, user) => {
    if (user) answer.setHeader("X-User-ID", user);
    answer.writeHead(user ? 200 : 401).end();
  },

  "POST /login": async (request, answer) => {
    const user = (await form(request)).name; // a real app checks a password here
    if (!name.test(user)) return answer.writeHead(400).end();
    const id = crypto.randomBytes(16).toString("hex");
    sessions.set(id, user);
    answer.setHeader("Set-Cookie", cookie(id, 86400)).writeHead(204).end();
  },

  "POST /messages": async (request, answer, user) => {
    const { to, text } = await form(request);
    if (!user) return answer.writeHead(401).end();
    if (!name.test(to)) return answer.writeHead(400).end();
    const published = await publish(`user-${to}:chat`, { from: user, text });
    answer.writeHead(published ? 204 : 503).end(); // a real app has stored the message and answers 204
  },

  // Delete the session first: the browser reconnects after the command, and then gets 401.
  "POST /logout": async (request, answer, user) => {
    sessions.delete(sessionOf(request));
    if (user) await publish("usercast:user-control", { op: "disconnect", user });
    answer.setHeader("Set-Cookie", cookie("", 0)).writeHead(204).end();
  },
};

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
redis.connect().catch(() => {}); // the listener above logs errors; the client retries
server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/`));
