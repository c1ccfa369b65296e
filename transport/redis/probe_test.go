package redis

import (
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// failover makes a hub that reaches server a through a relay, and two that it
// may be led to.
func failover(t *testing.T, userinfo string, setup func(*redistest.Server)) (h *hub, relay *redistest.Relay, a, b *redistest.Server) {
	t.Helper()
	a, b = redistest.Start(t), redistest.Start(t)
	setup(a)
	setup(b)
	relay = redistest.StartRelay(t, a.Addr())
	h = start(t, parse(t, "redis://"+userinfo+relay.Addr(), ServerOptions{}), func(c *Config) {
		c.ProbeEvery = 100 * time.Millisecond
		c.ProbeTimeout = time.Second
	})
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, a, "on a")
	return h, relay, a, b
}

func TestSoftFailoverBehindOneAddress(t *testing.T) {
	t.Parallel()
	h, relay, a, b := failover(t, "", func(*redistest.Server) {})
	relay.SetTarget(b.Addr())
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, b, "on b")
	h.log.once(t, "WARN redis subscription lost", "reason=moved", "another primary")
	h.log.warnings(t, 1)
	eventually(t, "the old subscription was gone", func() bool { return len(connections(a)) == 0 })
}

func TestSoftFailoverIsNoticedWithoutInfo(t *testing.T) {
	t.Parallel()
	h, relay, _, b := failover(t, "app:secret@", func(s *redistest.Server) {
		s.Do("acl", "setuser", "app", "on", ">secret", "+@all", "-info", "&*")
	})
	relay.SetTarget(b.Addr())
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, b, "on b")
	h.log.once(t, "WARN redis subscription lost", "reason=moved", "does not reach the subscription")
}

func TestSoftFailoverIsNoticedWithoutProbeChannel(t *testing.T) {
	t.Parallel()
	h, relay, _, b := failover(t, "app:secret@", func(s *redistest.Server) {
		s.Do("acl", "setuser", "app", "on", ">secret", "+@all", "resetchannels", "&user-*")
	})
	relay.SetTarget(b.Addr())
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, b, "on b")
	h.log.once(t, "WARN redis subscription lost", "reason=moved", "another primary")
}

func TestDemotedPrimaryIsLeft(t *testing.T) {
	t.Parallel()
	h, relay, a, b := failover(t, "", func(*redistest.Server) {})
	// The old primary follows the new one, as Sentinel would have it.
	host, port := b.HostPort()
	a.Do("replicaof", host, port)
	h.log.await(t, "WARN redis subscription lost", "reason=moved", "role changed")
	relay.SetTarget(b.Addr())
	eventually(t, "it was subscribed to the new primary", func() bool { return len(connections(b)) > 0 && h.Stats().Connected })
	h.awaitDelivery(t, b, "on b")
}

// On a replica everything seems to work; what is published there is not everything.
func TestSubscriptionToAReplicaIsAWarning(t *testing.T) {
	t.Parallel()
	primary, replica := redistest.Start(t), redistest.Start(t)
	host, port := primary.HostPort()
	replica.Do("replicaof", host, port)
	h := start(t, parse(t, replica.URL(), ServerOptions{}), func(*Config) {})
	h.awaitGeneration(t, 1)
	h.log.await(t, "WARN redis subscribed", "role=slave", "subscribe to the primary")
}

func TestHealthyRedisIsProbedAndKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *Config) { c.ProbeEvery = 10 * time.Millisecond })
	h.awaitGeneration(t, 1)
	eventually(t, "ten probes came back", func() bool { return probes(h) >= 10 })
	s := h.conserved(t)
	if s.Generation != 1 || s.Received != 0 {
		t.Errorf("stats %+v: a probe is no message, and no reason to reconnect", s)
	}
	if s.Probe.SumSeconds <= 0 || s.Probe.SumSeconds > 10 {
		t.Errorf("histogram %+v", s.Probe)
	}
	h.log.warnings(t, 0)
}

// A probe that cannot be made says nothing about the subscription.
func TestProbeThatCannotDialLeavesTheSubscription(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	h := start(t, parse(t, relay.URL(), ServerOptions{}), func(c *Config) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	nobody := redistest.Start(t)
	nobody.Kill()
	relay.SetTarget(nobody.Addr())
	before := relay.Accepted()
	eventually(t, "several probes failed", func() bool { return relay.Accepted() >= before+4 })
	h.awaitDelivery(t, server, "still here")
	h.log.once(t, "WARN redis probe failed", "reason=closed")
	h.log.warnings(t, 1)

	relay.SetTarget(server.Addr())
	n := probes(h)
	eventually(t, "probes came back again", func() bool { return probes(h) > n })
	if g := h.Stats().Generation; g != 1 {
		t.Errorf("generation %d, want 1", g)
	}
}

// Anyone may publish to a probe channel.
func TestStrangersOnTheProbeChannelAreIgnored(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	for _, payload := range []string{"", "1", "user-42"} {
		eventually(t, "the probe channel was subscribed to", func() bool {
			return server.Do("publish", h.probeChannel, payload) == int64(1)
		})
	}
	h.awaitDelivery(t, server, "x")
	if s := h.conserved(t); s.Received != 1 || probes(h) != 0 {
		t.Errorf("stats %+v", s)
	}
}

// A probe that comes back late, behind a backlog, is no sign of loss.
func TestLateProbeIsAwaited(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	release := make(chan struct{})
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *Config) {
		c.ProbeEvery = time.Second
		c.ProbeTimeout = 50 * time.Millisecond
		publish := c.Publish
		c.Publish = func(user, topic, payload string) int {
			<-release
			return publish(user, topic, payload)
		}
	})
	h.awaitGeneration(t, 1)
	server.Do("publish", "user-42:activity", "x")
	before := probes(h)
	eventually(t, "a probe was asked for", func() bool {
		return slices.ContainsFunc(connections(server), func(c string) bool {
			return strings.Contains(c, " psub=1 ") && strings.Contains(c, " cmd=ping ")
		})
	})
	close(release)
	eventually(t, "probes came back", func() bool { return probes(h) >= before+3 })
	if s := h.conserved(t); s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}

func TestProbeThatNeverComesIsNoticedOnABusyLink(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rights []any
		every  time.Duration
		within time.Duration
	}{
		"with PING":    {[]any{"-info"}, 3 * time.Second, 6 * time.Second}, // without its answer it would take 8.7 s at least
		"without PING": {[]any{"-info", "-ping"}, 100 * time.Millisecond, patience},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := redistest.Start(t), redistest.Start(t)
			for _, s := range []*redistest.Server{a, b} {
				s.Do(append([]any{"acl", "setuser", "app", "on", ">secret", "+@all", "&*"}, c.rights...)...)
			}
			relay := redistest.StartRelay(t, a.Addr())
			h := start(t, parse(t, "redis://app:secret@"+relay.Addr(), ServerOptions{}), func(cfg *Config) {
				cfg.ProbeEvery = c.every
				cfg.ProbeTimeout = 100 * time.Millisecond
			})
			h.awaitGeneration(t, 1)
			since := time.Now()
			relay.SetTarget(b.Addr())
			eventually(t, "the old primary was left", func() bool {
				a.Do("publish", "user-42", "on a") // it still gets messages
				return h.Stats().Generation == 2
			})
			if took := time.Since(since); took > c.within {
				t.Errorf("it took %v", took)
			}
			h.log.await(t, "WARN redis subscription lost", "reason=moved", "does not reach the subscription")
			h.awaitGeneration(t, 2)
			h.awaitDelivery(t, b, "on b")
		})
	}
}
