package redis

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/redistest"
)

// lowLimits are limits that Redis applies after two seconds instead of a minute. With 0, a message over the limit ends the
// subscription itself if a second begins while it is added to the buffer.
const lowLimits = "pubsub 32mb 200kb 1"

// moreThanTheLimit is longer than the time of lowLimits, in which Redis counts whole seconds.
const moreThanTheLimit = 2300 * time.Millisecond

// over publishes messages over the soft limit, one at a time: each is received before the next one is published. Between
// two of them, more time than that of the soft limit passes. sent is called after each one was received.
func over(t *testing.T, server *redistest.Server, messages, size int, received func(n int)) {
	t.Helper()
	for n := range messages {
		if n > 0 {
			time.Sleep(moreThanTheLimit)
		}
		server.Do("publish", "user-nobody:large", strings.Repeat("x", size))
		received(n + 1)
	}
}

// This is what the PING prevents: a subscriber that reads everything immediately is closed.
func TestRedisClosesASubscriberAfterItsSecondLargeMessage(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--client-output-buffer-limit", lowLimits)
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), Protocol: 2})
	defer client.Close()
	reader := client.PSubscribe(context.Background(), "user-*")
	defer reader.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	receive := func() error { _, err := reader.Receive(ctx); return err }
	if err := receive(); err != nil { // the confirmation
		t.Fatal(err)
	}
	closed := 0
	over(t, server, 2, 300_000, func(n int) {
		if receive() != nil && closed == 0 {
			closed = n
		}
	})
	if closed != 2 {
		t.Errorf("closed at message %d, want 2", closed)
	}
}

func TestLargeMessagesDoNotEndTheSubscription(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		size, maxPayload int
	}{
		"allowed":   {300_000, 1 << 20},
		"too large": {3_000_000, 1 << 20},
		"limit low": {300_000, 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "--client-output-buffer-limit", lowLimits)
			h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.MaxPayload = test.maxPayload })
			h.awaitGeneration(t, 1)
			over(t, server, 3, test.size, func(n int) {
				eventually(t, "message "+strconv.Itoa(n)+" was received", func() bool { return h.Stats().Received == uint64(n) })
			})
			if s := h.Stats(); s.Generation != 1 {
				t.Errorf("stats %+v", s)
			}
			h.log.warnings(t, 0)
		})
	}
}

// Messages over the soft limit follow each other for longer than its time.
func TestStreamOfLargeMessagesDoesNotEndTheSubscription(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--client-output-buffer-limit", "pubsub 32mb 200kb 2")
	h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	payload, sent := strings.Repeat("x", 1_000_000), uint64(0)
	for began := time.Now(); time.Since(began) < 6*time.Second; sent++ {
		server.Do("publish", "user-nobody:large", payload)
	}
	eventually(t, "all were received", func() bool { return h.Stats().Received == sent })
	t.Logf("%d messages", sent)
	if s := h.Stats(); s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}

// Each node of a cluster has the limit, whether or not the message was published there.
func TestLargeMessagesInAClusterDoNotEndTheSubscription(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2, "--client-output-buffer-limit", lowLimits)
	h := start(t, parse(t, clusterURL("", nodes...), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	for n := range 4 {
		if n > 0 {
			time.Sleep(moreThanTheLimit)
		}
		nodes[n%2].Do("publish", "user-nobody:large", strings.Repeat("x", 300_000))
		eventually(t, "it was received", func() bool { return h.Stats().Received == uint64(n+1) })
	}
	if s := h.Stats(); s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}

// Short messages that are published at once exceed the limit too, and the next large message ends the subscription.
func TestLargeMessageAfterManyShortOnesDoesNotEndTheSubscription(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--client-output-buffer-limit", lowLimits)
	h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	server.Do("eval", "for i = 1, 1000 do redis.call('publish', 'user-nobody', ARGV[1]) end return 1", 0, strings.Repeat("x", 1000))
	eventually(t, "the short messages were received", func() bool { return h.Stats().Received == 1000 })
	time.Sleep(moreThanTheLimit)
	server.Do("publish", "user-nobody", strings.Repeat("x", 300_000))
	eventually(t, "the large message was received", func() bool { return h.Stats().Received == 1001 })
	if s := h.Stats(); s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}
