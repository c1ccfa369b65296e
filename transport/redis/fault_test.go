package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

func TestRepliesOfOtherServersAreExplained(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reply  string
		hangUp bool
		want   []string
	}{
		"protected mode": {"-DENIED Redis is running in protected mode because …", true, []string{"reason=protected", "bind address"}},
		"full":           {"-ERR max number of clients reached", true, []string{"reason=full", "maxclients"}},
		"busy":           {"-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", false, []string{"reason=busy", "SCRIPT KILL"}},
		"loading":        {"-LOADING Redis is loading the dataset in memory", false, []string{"reason=loading"}},
		// Redis 5 replies to HELLO with its arguments.
		"echo of the password": {"-ERR unknown command `HELLO`, with args beginning with: `2`, `auth`, `app`, `secret`", false, []string{"reason=error", "error=Redis returned an error: failed to authenticate: ERR unknown command `HELLO`"}},
		"not redis":            {"HTTP/1.1 400 Bad Request", true, []string{"reason=reply", "address belongs to Redis"}},
	} {
		t.Run(name, func(t *testing.T) {
			addr := redistest.StartFake(t, func(...string) string { return c.reply }, c.hangUp)
			h := start(t, parse(t, "redis://app:secret@"+addr, ServerOptions{}), nil)
			h.log.await(t, append(c.want, "WARN redis subscription failed")...)
			h.log.mustNotContain(t, "secret")
		})
	}
}

func TestSubscriptionWithoutConfirmationTimesOut(t *testing.T) {
	t.Parallel()
	addr := redistest.StartFake(t, func(command ...string) string {
		if strings.HasSuffix(command[0], "subscribe") {
			return ""
		}
		return "-ERR unknown command"
	}, false)
	h := start(t, parse(t, "redis://"+addr, ServerOptions{AnswerTimeout: 100 * time.Millisecond}), nil)
	h.log.await(t, "WARN redis subscription failed", "reason=silent")
	if s := h.Stats(); s.Generation != 0 || s.Connected {
		t.Errorf("stats %+v of a subscription that was never confirmed", s)
	}
}

func TestAlternatingFaultsAreNotRepeated(t *testing.T) {
	t.Parallel()
	var s logLimiter
	now := time.Now()
	for i, c := range []struct {
		after  time.Duration
		reason string
		fresh  bool
	}{
		{0, "refused", true},
		{time.Hour, "refused", false}, // the same state as before
		{0, "silent", true},
		{time.Second, "refused", true}, // more than an hour since the last line
		{time.Second, "silent", false},
		{time.Second, "refused", false},
		{repeatAfter, "silent", true},
	} {
		now = now.Add(c.after)
		if s.allow(&topology.Fault{Reason: c.reason}, now) != c.fresh {
			t.Errorf("%d: %s is fresh: %v", i, c.reason, !c.fresh)
		}
	}
}

func TestUnreachableHostsAreExplained(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"redis://no-such-host.invalid":                          "reason=name",
		"unix:///nonexistent/redis.sock":                        "reason=refused",
		fmt.Sprint("redis://127.0.0.1:", redistest.FreePort(t)): "reason=refused",
	} {
		h := start(t, parse(t, url, ServerOptions{}), nil)
		h.log.await(t, "WARN redis subscription failed", want)
		h.stop()
		if n := strings.Count(h.log.String(), "WARN"); n != 1 {
			t.Errorf("%s: %d warnings", url, n)
		}
	}
}

// A hub that is busy processing messages does not read the reply to its PING. It must not assume that Redis is
// unresponsive: a new subscription would lose the messages that are in flight in the old one.
func TestBusyHubDoesNotFindRedisUnresponsive(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	server := redistest.Start(t)
	slow := &subscriber{onPublish: func(payload string) {
		if payload == "large" {
			time.Sleep(3 * timeout) // several times the timeout for an unresponsive Redis
		}
	}}
	h := startSubscriber(t, parse(t, server.URL(), ServerOptions{AnswerTimeout: timeout}), slow, func(c *PubSubConfig) { c.PingAfter = timeout / 10 })
	h.awaitGeneration(t, 1)
	server.Do("publish", "user-42:activity", "large")
	server.Do("publish", "user-42:activity", "behind it")
	h.awaitEvent(t, "42/activity/behind it")
	if s := h.conserved(t); s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}
