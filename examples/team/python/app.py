"""A small team chat: messages to a team, its members that are online, and a push for those that are not."""

import json
import os
import re
import secrets
import threading
import time
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
teams = {}  # user -> team
valid = re.compile("[a-z0-9]{1,32}").fullmatch


def members(team):
    return sorted(user for user, other in list(teams.items()) if other == team)


def publish(channel, message):
    """Returns whether Redis has received the message. Takes about a second at most, and never fails the request."""
    try:
        rdb.publish(channel, json.dumps(message))
        return True
    except redis.RedisError as err:
        print("usercast:", err, flush=True)
        return False


def online(names):
    """Returns the names that are online. If Redis is unavailable, the result is empty."""
    try:
        until = rdb.zmscore("usercast:user-online", names) if names else []  # needs Redis 6.2
    except redis.RedisError as err:
        print("usercast:", err, flush=True)
        return []
    now = time.time()
    return [name for name, score in zip(names, until) if score is not None and score >= now]


def push(user, text):  # a real app calls its push service here
    print(f"push to {user}: {text}", flush=True)


def announce_presence():
    """Notifies the team when a member comes online or goes offline. In a real app, exactly one process does this."""
    while True:
        try:
            with rdb.pubsub() as subscription:
                subscription.subscribe("usercast:user-presence")
                while True:
                    message = subscription.get_message(timeout=5)
                    if message is None:
                        subscription.ping()  # notices a connection that is broken
                    elif message["type"] == "subscribe":  # changes may have been missed: let all pages load the team
                        for team in set(teams.values()):
                            publish(f"group-team-{team}:presence", {"reload": True})
                    elif message["type"] == "message":
                        change = json.loads(message["data"])
                        if change["user"] in teams:
                            publish(f"group-team-{teams[change['user']]}:presence", change)
        except redis.RedisError as err:
            print("redis:", err, flush=True)
            time.sleep(0.5)


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
        user = sessions.get(self.session())
        if self.path == "/":
            self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, page)
        elif self.path == "/usercast/session":  # the session check: the user, and the user's groups
            self.answer(200, {"X-User-ID": user, "X-User-Groups": f"team-{teams[user]}"}) if user else self.answer(401)
        elif self.path == "/team":  # the state of the page: the members of the team, and which of them are online
            if not user:
                return self.answer(401)
            names = members(teams[user])
            there = online(names)
            state = {"team": teams[user], "members": [{"name": name, "online": name in there} for name in names]}
            self.answer(200, {"Content-Type": "application/json"}, json.dumps(state).encode())
        else:
            self.answer(404)

    def do_POST(self):
        form, user = self.form(), sessions.get(self.session())
        cookie = "session=%s; Path=/; HttpOnly; SameSite=Lax; Max-Age=%d"  # with HTTPS, add "; Secure"
        if self.path == "/login":  # a real app checks a password here
            name, team = form.get("name", ""), form.get("team", "")
            if not valid(name) or not valid(team):
                return self.answer(400)
            moved = teams.get(name, team) != team
            teams[name] = team
            session = secrets.token_hex(16)
            sessions[session] = name
            # The groups of an open stream do not change: end it, so that the page reconnects as a member of the new team.
            if moved:
                publish("usercast:user-control", {"op": "disconnect", "user": name})
            self.answer(204, {"Set-Cookie": cookie % (session, 86400)})
        elif self.path == "/messages":  # one PUBLISH reaches the team; members that are offline get a push
            if not user:
                return self.answer(401)
            text, team = form.get("text", ""), teams[user]
            published = publish(f"group-team-{team}:chat", {"from": user, "text": text})
            others = [name for name in members(team) if name != user]
            there = online(others)
            for name in others:
                if name not in there:
                    push(name, f"{user}: {text}")
            self.answer(204 if published else 503)  # a real app has stored the message and answers 204
        elif self.path == "/logout":  # delete the session first: the browser reconnects and then gets 401
            sessions.pop(self.session(), None)
            if user:
                publish("usercast:user-control", {"op": "disconnect", "user": user})
            self.answer(204, {"Set-Cookie": cookie % ("", 0)})
        else:
            self.answer(404)


port = int(os.environ.get("PORT", "3000"))
threading.Thread(target=announce_presence, daemon=True).start()
print(f"http://127.0.0.1:{port}/", flush=True)
ThreadingHTTPServer(("127.0.0.1", port), App).serve_forever()
