package redis

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

// failover returns a hub that reaches server a through a relay, and another server to which the relay can be switched.
func failover(t *testing.T, userinfo string, setup func(*redistest.Server)) (h *subscriber, relay *redistest.Relay, a, b *redistest.Server) {
	t.Helper()
	a, b = redistest.Start(t), redistest.Start(t)
	setup(a)
	setup(b)
	relay = redistest.StartRelay(t, a.Addr())
	h = start(t, parse(t, "redis://"+userinfo+relay.Addr(), ServerOptions{}), func(c *PubSubConfig) {
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
	h.log.once(t, "WARN redis subscription lost", "reason=moved", "do not reach the subscription")
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

func TestDemotedPrimaryIsReplaced(t *testing.T) {
	t.Parallel()
	h, relay, a, b := failover(t, "", func(*redistest.Server) {})
	// The old primary becomes a replica of the new one, as with Sentinel.
	host, port := b.HostPort()
	a.Do("replicaof", host, port)
	h.log.await(t, "WARN redis subscription lost", "reason=moved", "role has changed")
	relay.SetTarget(b.Addr())
	eventually(t, "it was subscribed to the new primary", func() bool { return len(connections(b)) > 0 && h.Stats().Connected })
	h.awaitDelivery(t, b, "on b")
}

// A subscription to a replica seems to work, but may not receive all messages.
func TestSubscriptionToAReplicaIsAWarning(t *testing.T) {
	t.Parallel()
	primary, replica := redistest.Start(t), redistest.Start(t)
	host, port := primary.HostPort()
	replica.Do("replicaof", host, port)
	h := start(t, parse(t, replica.URL(), ServerOptions{}), func(*PubSubConfig) {})
	h.awaitGeneration(t, 1)
	h.log.await(t, "WARN redis subscribed", "role=slave", "subscribe to the primary")
}

func TestHealthyRedisIsProbedAndKept(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 10 * time.Millisecond })
	h.awaitGeneration(t, 1)
	eventually(t, "ten probes were received", func() bool { return probes(h) >= 10 })
	s := h.conserved(t)
	if s.Generation != 1 || s.Received != 0 {
		t.Errorf("stats %+v: a probe must not count as a message or cause a reconnect", s)
	}
	if s.Probe.SumSeconds <= 0 || s.Probe.SumSeconds > 10 {
		t.Errorf("histogram %+v", s.Probe)
	}
	h.log.warnings(t, 0)
}

// A probe whose connection fails does not affect the subscription.
func TestProbeThatCannotDialLeavesTheSubscription(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	h := start(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	down := redistest.Start(t)
	down.Kill()
	relay.SetTarget(down.Addr())
	before := relay.Accepted()
	eventually(t, "several probes failed", func() bool { return relay.Accepted() >= before+4 })
	h.awaitDelivery(t, server, "still here")
	h.log.once(t, "WARN redis probe failed", "reason=closed")
	h.log.warnings(t, 1)

	relay.SetTarget(server.Addr())
	n := probes(h)
	eventually(t, "probes were received again", func() bool { return probes(h) > n })
	if g := h.Stats().Generation; g != 1 {
		t.Errorf("generation %d, want 1", g)
	}
}

// Any client can publish to a probe channel.
func TestForeignMessagesOnTheProbeChannelAreIgnored(t *testing.T) {
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

// A probe that is late because of a backlog is not a sign of loss.
func TestLateProbeIsAwaited(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	release := make(chan struct{})
	blocked := &subscriber{onPublish: func(string) { <-release }}
	h := startSubscriber(t, parse(t, server.URL(), ServerOptions{}), blocked, func(c *PubSubConfig) {
		c.ProbeEvery = 2 * time.Second // the test has twice this time to detect the PING
		c.ProbeTimeout = 50 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	server.Do("publish", "user-42:activity", "x")
	before := probes(h)
	eventually(t, "a PING was sent for a probe", func() bool {
		return slices.ContainsFunc(connections(server), func(c string) bool {
			return strings.Contains(c, " psub=1 ") && strings.Contains(c, " cmd=ping ")
		})
	})
	close(release)
	eventually(t, "probes were received", func() bool { return probes(h) >= before+2 })
	if s := h.conserved(t); s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
	h.log.warnings(t, 0)
}

func TestLostProbeIsDetectedOnABusyConnection(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		permissions []any
		every       time.Duration
		within      time.Duration
	}{
		"with PING":    {[]any{"-info"}, 3 * time.Second, 6 * time.Second}, // without the reply to PING, it would take at least 8.7 s
		"without PING": {[]any{"-info", "-ping"}, 100 * time.Millisecond, patience},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := redistest.Start(t), redistest.Start(t)
			for _, s := range []*redistest.Server{a, b} {
				s.Do(append([]any{"acl", "setuser", "app", "on", ">secret", "+@all", "&*"}, c.permissions...)...)
			}
			relay := redistest.StartRelay(t, a.Addr())
			h := start(t, parse(t, "redis://app:secret@"+relay.Addr(), ServerOptions{}), func(cfg *PubSubConfig) {
				cfg.ProbeEvery = c.every
				cfg.ProbeTimeout = 100 * time.Millisecond
			})
			h.awaitGeneration(t, 1)
			since := time.Now()
			relay.SetTarget(b.Addr())
			eventually(t, "the old primary was left", func() bool {
				a.Do("publish", "user-42", "on a") // the subscription still receives messages
				return h.Stats().Generation == 2
			})
			if took := time.Since(since); took > c.within {
				t.Errorf("it took %v", took)
			}
			h.log.await(t, "WARN redis subscription lost", "reason=moved", "do not reach the subscription")
			h.awaitGeneration(t, 2)
			h.awaitDelivery(t, b, "on b")
		})
	}
}

// An address that leads to several servers is distinguished from a failover, without a gap: the probe is sent to one
// server after the other until the subscription receives it.
func TestAddressOfSeveralServersIsOneGeneration(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		servers func(*testing.T) (publishAt *redistest.Server, behind []string)
		advice  string
	}{
		"replicas": {func(t *testing.T) (*redistest.Server, []string) {
			primary := redistest.Start(t)
			a, b, c := redistest.StartReplica(t, primary), redistest.StartReplica(t, primary), redistest.StartReplica(t, primary)
			return primary, []string{a.Addr(), b.Addr(), b.Addr(), c.Addr()}
		}, "redis+sentinel://"},
		"nodes of a cluster": {func(t *testing.T) (*redistest.Server, []string) {
			nodes := redistest.StartCluster(t, 2)
			return nodes[1], []string{nodes[0].Addr(), nodes[1].Addr()}
		}, "redis+cluster://"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server, behind := c.servers(t)
			relay := redistest.StartRelay(t, behind[0])
			relay.SetTargets(behind...)
			h := start(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) {
				c.ProbeEvery = 300 * time.Millisecond
				c.ProbeTimeout = patience // a probe that takes longer is lost
			})
			h.awaitGeneration(t, 1)
			eventually(t, "ten probes were received", func() bool { return probes(h) >= 10 })
			server.Do("publish", "user-42:activity", "x")
			h.awaitEvent(t, "42/activity/x")
			if s := h.conserved(t); s.Generation != 1 {
				t.Errorf("generation %d, want 1", s.Generation)
			}
			h.log.once(t, "WARN redis address leads to several servers", "hint=", c.advice)
			if n := h.log.count("WARN redis subscription lost"); n != 0 {
				t.Errorf("the subscription was lost %d times", n)
			}
		})
	}
}

// If an address leads to several servers, but not to that of the subscription any more, the probe is not received.
func TestServerThatLeavesAnAddressIsReplaced(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, a.Addr())
	relay.SetTargets(a.Addr(), b.Addr())
	h := start(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) {
		c.ProbeEvery = 300 * time.Millisecond
		c.ProbeTimeout = 200 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	h.log.await(t, "WARN redis address leads to several primaries", "hint=set --redis, and the Redis URL of the app")
	left, stays := a, b
	if len(connections(b)) > 0 && strings.Contains(strings.Join(connections(b), ""), " psub=1 ") {
		left, stays = b, a
	}
	relay.SetTarget(stays.Addr())
	eventually(t, "it was subscribed to the other server", func() bool {
		return slices.ContainsFunc(connections(stays), func(c string) bool { return strings.Contains(c, " psub=1 ") })
	})
	eventually(t, "the server was left", func() bool { return len(connections(left)) == 0 })
	h.log.once(t, "WARN redis subscription lost", "reason=moved", "do not reach the subscription")
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, stays, "x")
}

// A balancer may send each new connection to another server than that of the subscription. A server that was reached before
// the subscription was made has not replaced the one of the subscription. Both the probe and the look-up that confirms a new
// subscription recognize that, but also a failover.
func TestAddressThatNeverLeadsBackIsRecognized(t *testing.T) {
	t.Parallel()
	before, now, later := redistest.Start(t), redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, before.Addr())
	h := start(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 40 * time.Second })
	h.awaitGeneration(t, 1)
	relay.SetTarget(now.Addr())
	s := newSubscription(h.PubSub, func(error) {})
	var err error
	if s.link, s.primary, err = s.lookUpAt(t.Context(), topology.Target{}); err != nil {
		t.Fatal(err)
	}
	s.since = time.Now()

	relay.SetTarget(before.Addr())
	if same, moved := s.isAtSameServer(t.Context()); !same || moved != nil {
		t.Errorf("the look-up returned %v, %v", same, moved)
	}
	s.oneOfSeveral.Store(false)
	sent, err := s.sendProbe(t.Context(), topology.Target{}, "token")
	if err != nil || sent.moved == nil || !s.severalServers(t.Context(), s.primary, sent.found, sent.known) {
		t.Errorf("the probe has reached %+v, %v", sent, err)
	}
	h.log.once(t, "WARN redis address leads to several primaries")

	relay.SetTarget(later.Addr())
	if same, moved := s.isAtSameServer(t.Context()); same || moved == nil {
		t.Errorf("after a failover, the look-up returned %v, %v", same, moved)
	}
	sent, err = s.sendProbe(t.Context(), topology.Target{}, "token")
	if err != nil || sent.moved == nil {
		t.Errorf("after a failover, the probe has reached %+v, %v", sent, err)
	}
}

// The stream feed also keeps its connection as long as the address still leads to its server.
func TestStreamFeedStaysAtOneOfSeveralServers(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	a, b := redistest.StartReplica(t, primary), redistest.StartReplica(t, primary)
	relay := redistest.StartRelay(t, a.Addr())
	relay.SetTargets(a.Addr(), b.Addr())
	log := &logbook{}
	f := follow(t, parse(t, relay.URL(), ServerOptions{}), func(c *StreamConfig) {
		c.ProbeEvery = 300 * time.Millisecond
		c.Logger = slog.New(log)
	})
	before := relay.Accepted()
	eventually(t, "twenty connections were made", func() bool { return relay.Accepted() >= before+20 })
	if g := f.Stats().Generation; g != 1 {
		t.Errorf("generation %d, want 1", g)
	}
	log.once(t, "WARN redis address leads to several servers")
	// Between two reads, CLIENT LIST briefly shows another command for a connection.
	reads := func(r *redistest.Server) bool {
		return slices.ContainsFunc(connections(r), func(c string) bool { return strings.Contains(c, " cmd=xread ") })
	}
	var other *redistest.Server
	eventually(t, "one of the servers is read", func() bool {
		switch {
		case reads(a):
			other = b
		case reads(b):
			other = a
		}
		return other != nil
	})
	relay.SetTarget(other.Addr())
	f.connected(t, 2)
	xadd(primary, "user-42:activity", "x")
	f.want(t, "42:activity x")
}

// Entries of another primary are not in the stream that is read, and the stream feed cannot see that they are missing.
func TestStreamFeedNamesAnAddressOfIndependentPrimaries(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, a.Addr())
	relay.SetTargets(a.Addr(), b.Addr())
	log := &logbook{}
	follow(t, parse(t, relay.URL(), ServerOptions{}), func(c *StreamConfig) {
		c.ProbeEvery = 300 * time.Millisecond
		c.Logger = slog.New(log)
	})
	log.await(t, "WARN redis address leads to several primaries", "is not received", "only one of them")
}
