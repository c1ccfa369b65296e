package redis

import (
	"log/slog"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"

	"usercast/internal/redistest"
)

func TestWrongPasswordThenCorrected(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "right-secret")
	h := start(t, parse(t, "redis://:wrong-secret@"+server.Addr(), ServerOptions{}), nil)
	h.log.await(t, "reason=password")
	attempts := callsOf(t, server, "auth")
	eventually(t, "two more attempts were made", func() bool { return callsOf(t, server, "auth") >= attempts+2 })
	if h.Stats().Generation != 0 {
		t.Error("subscribed with a wrong password")
	}
	server.Do("config", "set", "requirepass", "wrong-secret")
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "x")
	h.log.once(t, "WARN redis subscription failed", "reason=password", "rejected the user or password")
	h.log.warnings(t, 1)
	h.log.mustNotContain(t, "secret")
}

func TestPasswordErrorsAreDistinguished(t *testing.T) {
	t.Parallel()
	closed := redistest.Start(t, "--requirepass", "secret")
	open := redistest.Start(t)
	open.Do("acl", "setuser", "app", "on", ">secret", "~*", "&*", "+@all")
	for _, c := range []struct{ url, problem string }{
		{closed.URL(), "none is configured"},
		{"redis://app:not-the-secret@" + open.Addr(), "rejected the user or password"},
		{"redis://stranger:secret@" + open.Addr(), "rejected the user or password"},
	} {
		h := start(t, parse(t, c.url, ServerOptions{}), nil)
		h.log.await(t, "WARN redis subscription failed", "reason=password", c.problem)
		h.log.mustNotContain(t, "secret")
		h.stop()
	}
	h := start(t, parse(t, "redis://app@"+open.Addr(), ServerOptions{Password: "secret"}), nil)
	h.awaitGeneration(t, 1)
	h.log.mustNotContain(t, "secret")
}

func TestNoPermissionToSubscribeThenGranted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("acl", "setuser", "app", "on", ">secret", "+@all", "resetchannels", "&usercast:*")
	h := start(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), nil)
	h.log.await(t, "reason=right")
	attempts := callsOf(t, server, "psubscribe")
	eventually(t, "two more attempts were made", func() bool { return callsOf(t, server, "psubscribe") >= attempts+2 })
	if s := h.Stats(); s.Generation != 0 || s.Connected {
		t.Errorf("stats %+v of a hub that is not allowed to subscribe", s)
	}
	server.Do("acl", "setuser", "app", "+psubscribe", "&user-*") // the command in the log
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "granted")
	h.log.once(t, "WARN redis subscription failed", "user app is not allowed to subscribe to user-*", "hint=ACL SETUSER app +psubscribe &user-*")
	h.log.warnings(t, 1)

	// When the permission is revoked, Redis disconnects the user.
	server.Do("acl", "setuser", "app", "resetchannels")
	eventually(t, "it was logged again", func() bool { return h.log.count("WARN", "reason=right") == 2 })
}

// The subscription to the patterns is one command, so Redis refuses it as a whole (R3). Without the users' or the groups'
// channels the hub has no subscription, instead of one that misses messages.
func TestPermissionForOneOfTwoPatternsIsNotEnough(t *testing.T) {
	t.Parallel()
	for _, allowed := range []string{"&user-*", "&group-*"} {
		t.Run(allowed, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.Do("acl", "setuser", "app", "on", ">secret", "+@all", "resetchannels", "&usercast:*", allowed)
			h := start(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), func(c *PubSubConfig) { c.Channels.Groups = "group-" })
			h.log.await(t, "reason=right")
			attempts := callsOf(t, server, "psubscribe")
			eventually(t, "two more attempts were made", func() bool { return callsOf(t, server, "psubscribe") >= attempts+2 })
			if s := h.Stats(); s.Generation != 0 || s.Connected {
				t.Errorf("stats %+v of a hub that is not allowed to subscribe", s)
			}
			if n := server.Do("pubsub", "numpat"); n != int64(0) {
				t.Errorf("%v patterns are subscribed to", n)
			}
			h.log.once(t, "WARN redis subscription failed", "user app is not allowed to subscribe to group-* and user-*", "hint=ACL SETUSER app +psubscribe &group-* &user-*")
			h.log.warnings(t, 1)
			server.Do("acl", "setuser", "app", "+psubscribe", "&group-*", "&user-*") // the command in the log
			h.awaitGeneration(t, 1)
			server.Do("publish", "group-7:t", "granted")
			h.awaitEvent(t, "group 7/t/granted")
			h.awaitDelivery(t, server, "granted")
		})
	}
}

func TestMissingPermissionsAreLoggedOnceAndOptional(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("acl", "setuser", "app", "on", ">secret", "+psubscribe", "resetchannels", "&user-*")
	h := start(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), func(c *PubSubConfig) {
		c.PingAfter = 20 * time.Millisecond
		c.ProbeEvery = 20 * time.Millisecond
		c.ProbeTimeout = patience // of a PING, since the probe is not received
	})
	h.awaitGeneration(t, 1)
	missing := map[string]string{
		"command=CLIENT SETNAME":                   "hint=ACL SETUSER app +client|setname",
		"command=INFO":                             "hint=ACL SETUSER app +info",
		"command=SUBSCRIBE to the control channel": "hint=ACL SETUSER app +subscribe &usercast:user-control",
		"command=SUBSCRIBE to the probe channel":   "hint=ACL SETUSER app +subscribe &usercast:user-probe:*",
		"command=PUBLISH to the probe channel":     "hint=ACL SETUSER app +publish &usercast:user-probe:*",
		"command=PING":                             "hint=ACL SETUSER app +ping",
	}
	for command := range missing {
		h.log.await(t, command)
	}
	pings, publishes := callsOf(t, server, "ping"), callsOf(t, server, "publish")
	eventually(t, "it continued", func() bool {
		return callsOf(t, server, "ping") >= pings+2 && callsOf(t, server, "publish") >= publishes+2
	})
	h.awaitDelivery(t, server, "x")
	for command, do := range missing {
		h.log.once(t, "WARN redis permission missing", command, do)
	}
	h.log.warnings(t, len(missing))
	if s := h.conserved(t); s.Generation != 1 || s.Received != 1 {
		t.Errorf("stats %+v", s)
	}
	// The permissions in the log are sufficient.
	server.Do("acl", "setuser", "app", "+client|setname", "+info", "+ping", "+subscribe", "+publish", "&usercast:user-control", "&usercast:user-probe:*")
	server.Do("client", "kill", "type", "pubsub")
	h.awaitGeneration(t, 2)
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
}

func TestEmbeddedRedisOfDevIsEnough(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	h := start(t, parse(t, "redis://"+server.Addr(), ServerOptions{}), func(c *PubSubConfig) {
		c.PingAfter = 20 * time.Millisecond
		c.ProbeEvery = 20 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	if n := server.Publish("user-42:activity", "x"); n != 1 {
		t.Errorf("published to %d subscribers", n)
	}
	h.awaitEvent(t, "42/activity/x")
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	h.log.once(t, "INFO redis command unavailable", "command=INFO")
	h.log.warnings(t, 0)
}

func TestConsequenceOfMissingInfoFitsTheFeed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "INFO", "")
	h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
	h.log.await(t, "INFO redis command unavailable", "command=INFO", "detected only by a lost probe")
	var log logbook
	follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.Logger = slog.New(&log) })
	log.await(t, "INFO redis command unavailable", "command=INFO", "same address is not detected")
}
