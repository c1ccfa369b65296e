package redis

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"usercast/internal/redistest"
)

func TestRedisKilledAndRestarted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "before")

	server.Kill()
	h.log.await(t, "reason=refused")
	if h.Stats().Connected {
		t.Error("connected to a Redis that was killed")
	}
	server.Restart()
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, server, "after")

	want := []string{"generation 1", "42/activity/before", "generation 2", "42/activity/after"}
	if got := h.seen(); strings.Join(got, ",") != strings.Join(want, ",") {
		t.Errorf("events %q, want %q", got, want)
	}
	if s := h.conserved(t); s.Reconnects != 1 || s.Received != 2 {
		t.Errorf("stats %+v", s)
	}
	h.log.once(t, "WARN redis subscription lost", "reason=closed", "redis="+server.Addr())
	h.log.once(t, "WARN redis subscription failed", "reason=refused")
	h.log.once(t, "INFO redis subscribed", "generation=2", "role=master")
	h.log.warnings(t, 2)
}

func TestBackWithinTwoSecondsOfRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.BackoffMax = 0 }) // default times
	h.awaitGeneration(t, 1)
	server.Kill()
	h.log.await(t, "reason=refused")
	server.Restart()
	since := time.Now()
	h.awaitGeneration(t, 2)
	if took := time.Since(since); took > 2*time.Second {
		t.Errorf("back after %v, want at most 2s", took)
	}
}

func TestRedisDownAtStart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
	h.log.await(t, "reason=refused")
	if s := h.Stats(); s.Connected || s.Generation != 0 || s.Reconnects != 0 {
		t.Errorf("stats %+v of a hub that never subscribed", s)
	}
	server.Restart()
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "x")
	h.log.once(t, "WARN redis subscription failed", `error=connection refused`, "hint=check that Redis is running")
	h.log.warnings(t, 1)
}

func TestFrozenRedisIsNoticedAndThawed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{AnswerTimeout: 500 * time.Millisecond}), func(c *PubSubConfig) {
		c.PingAfter = 100 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	server.Freeze()
	h.log.await(t, "WARN redis subscription lost", "reason=silent")
	eventually(t, "it is disconnected", func() bool { return !h.Stats().Connected })
	server.Thaw()
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, server, "after")
	h.log.once(t, "WARN ", "reason=silent", "hint=check whether it is stalled")
	h.log.warnings(t, 1)
}

func TestFrozenRedisIsLoggedOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	server.Freeze()
	h := start(t, parse(t, relay.URL(), ServerOptions{AnswerTimeout: 100 * time.Millisecond}), nil)
	eventually(t, "several attempts were made", func() bool { return relay.Accepted() >= 4 })
	h.log.once(t, "WARN redis subscription failed", "reason=silent")
	h.log.warnings(t, 1)
	server.Thaw()
}

func TestHalfOpenConnectionIsNoticed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	h := start(t, parse(t, relay.URL(), ServerOptions{AnswerTimeout: time.Second}), func(c *PubSubConfig) {
		c.PingAfter = 100 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	relay.Silence()
	h.awaitGeneration(t, 2)
	// The old subscription still exists in Redis, which has not detected the loss.
	server.Do("publish", "user-42:activity", "after")
	h.awaitEvent(t, "42/activity/after")
	h.log.once(t, "WARN redis subscription lost", "reason=silent")
	h.log.warnings(t, 1)
}

func TestIdleConnectionIsKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{AnswerTimeout: time.Second}), func(c *PubSubConfig) {
		c.PingAfter = 20 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	eventually(t, "it was pinged three times", func() bool {
		return callsOf(t, server, "ping") >= 4 // the first one was from redistest
	})
	if s := h.Stats(); s.Generation != 1 || !s.Connected {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}

func TestConnectionClosedByRedis(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(*redistest.Server){
		"client kill": func(s *redistest.Server) { s.Do("client", "kill", "type", "pubsub") },
		"output buffer limit": func(s *redistest.Server) {
			s.Do("config", "set", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
			s.Do("publish", "user-nobody", strings.Repeat("x", 4<<20))
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
			h.awaitGeneration(t, 1)
			cut(server)
			h.awaitGeneration(t, 2)
			h.awaitDelivery(t, server, "after")
			h.log.once(t, "WARN redis subscription lost", "reason=closed", "CLIENT KILL")
			h.log.warnings(t, 1)
		})
	}
}

func TestGenerationIsOneConnection(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	h := start(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) { c.NoMarkers = true })
	for n := range 4 {
		h.awaitGeneration(t, uint64(n+1))
		h.awaitDelivery(t, server, strconv.Itoa(n))
		// Without the check, go-redis would reconnect inside Receive.
		if made := relay.Accepted(); made != n+1 {
			t.Fatalf("%d connections for %d generations", made, n+1)
		}
		server.Do("client", "kill", "type", "pubsub")
	}
	eventually(t, "the last was lost", func() bool { return h.Stats().Generation == 5 })
	h.conserved(t)
}

func TestConnectionsAreNamed(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL()+"/3", ServerOptions{}), func(c *PubSubConfig) {
		c.ProbeEvery = 150 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	var ours []string
	eventually(t, "there were only the subscription and the connection for markers again", func() bool {
		ours = connections(server)
		all := strings.Count(server.Do("client", "list").(string), "\n")
		return len(ours) == 2 && strings.Contains(ours[1], " cmd=publish ") && all == 3 // and this command
	})
	for _, want := range []string{" psub=1 ", " sub=2 ", " resp=2", " db=0 "} {
		if !strings.Contains(ours[0], want) {
			t.Errorf("%q does not contain %q", ours[0], want)
		}
	}
	h.stop()
	eventually(t, "no connection was left", func() bool { return len(connections(server)) == 0 })
}

// Not parallel, so that goroutines of other tests are not counted as leaks.
func TestNothingOutlivesRun(t *testing.T) {
	server := redistest.Start(t)
	for name, until := range map[string]func(*subscriber){
		"subscribed": func(h *subscriber) { h.awaitGeneration(t, 1) },
		"probing":    func(h *subscriber) { eventually(t, "a probe was received", func() bool { return probes(h) > 0 }) },
		"at once":    func(*subscriber) {},
		"frozen": func(h *subscriber) {
			h.awaitGeneration(t, 1)
			server.Freeze()
			h.log.await(t, "reason=silent")
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			h := start(t, parse(t, server.URL(), ServerOptions{AnswerTimeout: 500 * time.Millisecond}), func(c *PubSubConfig) {
				c.PingAfter = 50 * time.Millisecond
				c.ProbeEvery = 50 * time.Millisecond
			})
			until(h)
			h.stop()
			server.Thaw()
			goleak.VerifyNone(t, before)
		})
	}
}

func TestRunTwiceIsAnError(t *testing.T) {
	t.Parallel()
	p, err := NewPubSub(PubSubConfig{
		Server: parse(t, "redis://127.0.0.1:1", ServerOptions{}),
		Hub:    noStreams{},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Run(ctx); err != nil {
		t.Errorf("first Run: %v", err)
	}
	if p.Run(ctx) == nil {
		t.Error("the second Run is accepted")
	}
}
