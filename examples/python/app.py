"""A small app whose users log in and send each other messages: Python and redis-py, without a framework."""

import json
import os
import re
import secrets
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

rdb = redis.Redis.from_url(
    os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"),
    socket_connect_timeout=0.5,
    socket_timeout=0.5,
    retry=Retry(NoBackoff(), 1),
)
page = Path(__file__).with_name("page.html").read_bytes()
sessions = {}  # session id -> user; in your app, a database
valid = re.compile("[a-z0-9]{1,32}").fullmatch


def publish(channel, message):
    """Returns whether Redis has received the message. Takes about a second at most, and never fails the request."""
    try:
        rdb.publish(channel, json.dumps(message))
        return True
    except redis.RedisError as err:
        print("usercast:", err, flush=True)
        return False


class App(BaseHTTPRequestHandler):
    def session(self):
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        return cookie.value if cookie else ""

    def form(self):
        length = min(int(self.headers.get("Content-Length", 0)), 10000)
        return dict(parse_qsl(self.rfile.read(length).decode(errors="replace")))

    def answer(self, status, headers={}, body=b""):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/":
            self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, page)
        elif self.path == "/usercast/session":  # the session check, with the browser's cookies
            user = sessions.get(self.session())
            self.answer(200, {"X-User-ID": user}) if user else self.answer(401)
        else:
            self.answer(404)

    def do_POST(self):
        form, user = self.form(), sessions.get(self.session())
        cookie = "session=%s; Path=/; HttpOnly; SameSite=Lax; Max-Age=%d"  # with HTTPS, add "; Secure"
        if self.path == "/login":  # a real app checks a password here
            if not valid(form.get("name", "")):
                return self.answer(400)
            session = secrets.token_hex(16)
            sessions[session] = form["name"]
            self.answer(204, {"Set-Cookie": cookie % (session, 86400)})
        elif self.path == "/messages":
            if not user:
                return self.answer(401)
            if not valid(form.get("to", "")):
                return self.answer(400)
            message = {"from": user, "text": form.get("text", "")}
            published = publish(f"user-{form['to']}:chat", message)
            self.answer(204 if published else 503)  # a real app has stored the message and answers 204
        elif self.path == "/logout":  # delete the session first: the browser reconnects and then gets 401
            sessions.pop(self.session(), None)
            if user:
                publish("usercast:user-control", {"op": "disconnect", "user": user})
            self.answer(204, {"Set-Cookie": cookie % ("", 0)})
        else:
            self.answer(404)


port = int(os.environ.get("PORT", "3000"))
print(f"http://127.0.0.1:{port}/", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), App).serve_forever()
