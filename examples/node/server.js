// A small app whose logged-in users hear messages at once: Node, no framework.
const http = require("node:http");
const fs = require("node:fs");
const path = require("node:path");
const crypto = require("node:crypto");
const { createClient } = require("redis");

const redis = createClient({ url: process.env.REDIS_URL || "redis://127.0.0.1:6379" });
redis.on("error", err => console.error("redis:", err.message));

const page = fs.readFileSync(path.join(__dirname, "page.html"));
const sessions = new Map(); // session id -> user; yours is in a database
const name = /^[a-z0-9]{1,32}$/;

// Behind HTTPS add "; Secure".
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

  // The hub asks here, with the browser's cookies, who wants a stream.
  "GET /usercast/session": (request, answer, user) => {
    if (user) answer.setHeader("X-User-ID", user);
    answer.writeHead(user ? 200 : 401).end();
  },

  "POST /login": async (request, answer) => {
    const user = (await form(request)).name; // here a password would be checked
    if (!name.test(user)) return answer.writeHead(400).end();
    const id = crypto.randomBytes(16).toString("hex");
    sessions.set(id, user);
    answer.setHeader("Set-Cookie", cookie(id, 86400)).writeHead(204).end();
  },

  "POST /messages": async (request, answer, user) => {
    const { to, text } = await form(request);
    if (!user) return answer.writeHead(401).end();
    if (!name.test(to)) return answer.writeHead(400).end();
    await redis.publish(`user-${to}:chat`, JSON.stringify({ from: user, text })); // the line that it is all about
    answer.writeHead(204).end();
  },

  // First the session ends, then the streams: they come back, and are told 401.
  "POST /logout": async (request, answer, user) => {
    sessions.delete(sessionOf(request));
    if (user) await redis.publish("usercast:user-control", JSON.stringify({ op: "disconnect", user }));
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
redis.connect().then(() => server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/`)));
