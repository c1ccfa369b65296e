package redis

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// watched is a primary with two replicas and three Sentinels.
type watched struct {
	sentinels []*redistest.Server
	servers   map[string]*redistest.Server // by address
	primary   *redistest.Server            // at first
}

func startWatched(t *testing.T) *watched {
	t.Helper()
	w := &watched{servers: make(map[string]*redistest.Server), primary: redistest.Start(t)}
	w.servers[w.primary.Addr()] = w.primary
	for range 2 {
		replica := redistest.StartReplica(t, w.primary)
		w.servers[replica.Addr()] = replica
	}
	w.sentinels = redistest.StartSentinels(t, 3, "main", w.primary)
	return w
}

func sentinelURL(sentinels ...*redistest.Server) string {
	var addrs []string
	for _, s := range sentinels {
		addrs = append(addrs, s.Addr())
	}
	return "redis+sentinel://" + strings.Join(addrs, ",") + "/main"
}

func TestKilledPrimaryIsFollowed(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	redis := parse(t, sentinelURL(w.sentinels...), ServerOptions{})
	h := start(t, redis, func(c *PubSubConfig) { c.BackoffMax = 0 }) // default times
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, w.primary, "before")
	c := NewCommands(redis)
	defer c.Close()
	if n, err := c.Publish(context.Background(), "user-42", "command"); n != 1 || err != nil {
		t.Errorf("Publish = %d, %v", n, err)
	}
	h.awaitEvent(t, "42//command")

	w.primary.Kill()
	killed := time.Now()
	h.awaitGeneration(t, 2)
	took := time.Since(killed)
	eventually(t, "all sentinels report the promoted one", func() bool {
		return !slices.ContainsFunc(w.sentinels, func(s *redistest.Server) bool { return s.PrimaryOf("main") == w.primary.Addr() })
	})
	promoted := w.servers[w.sentinels[0].PrimaryOf("main")]
	h.awaitDelivery(t, promoted, "after")
	if n, err := c.Publish(context.Background(), "user-42", "again"); n != 1 || err != nil {
		t.Errorf("Publish = %d, %v", n, err)
	}
	h.awaitEvent(t, "42//again")
	want := []string{"generation 1", "42/activity/before", "42//command", "generation 2", "42/activity/after", "42//again"}
	if got := h.seen(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if got, want := h.Stats().Redis, w.sentinels[0].Addr()+"/main"; got != want {
		t.Errorf("named %q, want %q", got, want)
	}
	h.log.once(t, "INFO redis subscribed", "generation=2", "role=master", "address="+promoted.Addr())
	t.Logf("back %v after the kill; the sentinels wait for %v", took.Round(time.Millisecond), redistest.SentinelDown)
}

// During a soft failover, each message is either received, or followed by a new generation.
func TestSoftFailoverBySentinelLosesNothingSilently(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	h := start(t, parse(t, sentinelURL(w.sentinels...), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)

	type message struct {
		number, receivers int
		addr              string
	}
	var sent []message
	after := 0
	var began, noticed time.Time
	for i := 0; after < 100; i++ {
		if i == 100 {
			w.sentinels[0].Do("sentinel", "failover", "main")
			began = time.Now()
		}
		addr := w.sentinels[0].PrimaryOf("main")
		// The old primary may close the connection: then the result of the command is unknown.
		if receivers, err := w.servers[addr].Try("publish", "user-42:n", i); err == nil {
			sent = append(sent, message{i, int(receivers.(int64)), addr})
		}
		if s := h.Stats(); s.Generation >= 2 && s.Connected && addr != w.primary.Addr() {
			if after++; noticed.IsZero() {
				noticed = time.Now()
			}
		}
		if time.Since(began) > patience && !began.IsZero() {
			t.Fatal("the failover was not noticed")
		}
	}
	last := sent[len(sent)-1]
	h.awaitEvent(t, fmt.Sprint("42/n/", last.number))

	events := h.seen()
	at := make(map[int]int) // number → index of its event
	lastGeneration := 0
	for i, event := range events {
		if number, ok := strings.CutPrefix(event, "42/n/"); ok {
			n, _ := strconv.Atoi(number)
			if _, twice := at[n]; twice {
				t.Errorf("%d was received twice", n)
			}
			at[n] = i
		} else {
			lastGeneration = i
		}
	}
	missing, latest := 0, 0
	for _, m := range sent {
		if i, ok := at[m.number]; ok {
			latest = max(latest, i)
			continue
		}
		if m.receivers == 0 && m.addr != last.addr {
			continue // sent to a primary without the subscription
		}
		if missing++; latest > lastGeneration {
			t.Errorf("%d, sent to %s and received by %d, is missing, and no generation came after it", m.number, m.addr, m.receivers)
		}
	}
	t.Logf("%d sent, %d missing before generation %d, noticed after %v", len(sent), missing, h.Stats().Generation, noticed.Sub(began).Round(time.Millisecond))
}

// sighting is the reply of a Sentinel about the primary.
type sighting struct {
	addr  string
	epoch int64
}

// fakeSentinel is a Sentinel that returns the primary that the test sets.
type fakeSentinel struct {
	addr string
	says atomic.Pointer[sighting]
}

func startFakeSentinel(t *testing.T, says sighting) *fakeSentinel {
	t.Helper()
	f := &fakeSentinel{}
	f.say(says)
	bulk := func(s string) string { return fmt.Sprintf("$%d\r\n%s", len(s), s) }
	f.addr = redistest.StartFake(t, func(words ...string) string {
		says := *f.says.Load()
		switch {
		case words[0] == "ping":
			return "+PONG"
		case words[0] != "sentinel":
			return "-ERR unknown command"
		case words[1] == "master":
			return "*2\r\n" + bulk("config-epoch") + "\r\n" + bulk(fmt.Sprint(says.epoch))
		}
		host, port, _ := strings.Cut(says.addr, ":")
		return "*2\r\n" + bulk(host) + "\r\n" + bulk(port)
	}, false)
	return f
}

func (f *fakeSentinel) say(says sighting) { f.says.Store(&says) }

// Only the probe can detect it: the old primary stays up and keeps its role.
func TestProbeQueriesTheSentinelsAgain(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	sentinel := startFakeSentinel(t, sighting{a.Addr(), 0})
	h := start(t, parse(t, "redis+sentinel://"+sentinel.addr+"/main", ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 50 * time.Millisecond })
	h.awaitGeneration(t, 1)
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	sentinel.say(sighting{b.Addr(), 1})
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, b, "on b")
	h.log.once(t, "WARN redis subscription lost", "reason=moved")
	h.log.warnings(t, 1)
}

func TestPromotionIsNoticedBeforeTheNextProbe(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	behind, sentinel := startFakeSentinel(t, sighting{a.Addr(), 0}), startFakeSentinel(t, sighting{a.Addr(), 0})
	h := start(t, parse(t, "redis+sentinel://"+behind.addr+","+sentinel.addr+"/main", ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = time.Hour })
	h.awaitGeneration(t, 1)
	sentinel.say(sighting{b.Addr(), 1}) // not the Sentinel that was queried last
	h.awaitGeneration(t, 2)
	h.awaitDelivery(t, b, "on b")
}

func TestReplicaThatASentinelReportsIsRejected(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := redistest.StartReplica(t, primary)
	stale, sentinel := startFakeSentinel(t, sighting{replica.Addr(), 0}), startFakeSentinel(t, sighting{replica.Addr(), 0})
	redis := parse(t, "redis+sentinel://"+stale.addr+","+sentinel.addr+"/main", ServerOptions{})
	h := start(t, redis, nil)
	h.log.await(t, "WARN redis subscription failed", "reason=sentinel", "is a replica")
	c := NewCommands(redis)
	defer c.Close()
	if _, err := c.Publish(context.Background(), "user-42", "x"); err == nil || !strings.Contains(err.Error(), "is a replica") {
		t.Errorf("Publish: %v", err)
	}
	if n := h.Stats().Generation; n != 0 {
		t.Errorf("generation %d on a replica", n)
	}
	// The first Sentinel is outdated; the second one knows the new primary.
	sentinel.say(sighting{primary.Addr(), 0}) // before it raises its epoch
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, primary, "x")
	h.log.once(t, "WARN ", "reason=sentinel")
	h.log.warnings(t, 1)
}

// A partitioned Sentinel returns a primary that is down.
func TestSentinelWithADeadPrimaryIsSkipped(t *testing.T) {
	t.Parallel()
	dead, primary := redistest.Start(t), redistest.Start(t)
	dead.Kill()
	stale, sentinel := startFakeSentinel(t, sighting{dead.Addr(), 0}), startFakeSentinel(t, sighting{primary.Addr(), 0})
	h := start(t, parse(t, "redis+sentinel://"+stale.addr+","+sentinel.addr+"/main", ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, primary, "x")
	h.log.once(t, "WARN redis subscription failed", "reason=refused")
}

// Split brain: one Sentinel is partitioned from the others together with the old primary, which keeps its role. The hub
// reaches both sides.
func TestOutdatedSentinelIsNotTrusted(t *testing.T) {
	t.Parallel()
	old, promoted := redistest.Start(t), redistest.Start(t)
	behind, sentinel := startFakeSentinel(t, sighting{old.Addr(), 3}), startFakeSentinel(t, sighting{old.Addr(), 3})
	h := start(t, parse(t, "redis+sentinel://"+behind.addr+","+sentinel.addr+"/main", ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	sentinel.say(sighting{promoted.Addr(), 4})
	locate := func() {
		if _, err := h.server.LocatePrimary(t.Context()); err != nil { // as the hub does every 2 s
			t.Error(err)
		}
	}
	locate()
	h.awaitGeneration(t, 2)
	before := probes(h)
	locate()
	eventually(t, "probes were received", func() bool { return probes(h) >= before+10 })
	h.awaitDelivery(t, promoted, "x")
	if n := h.Stats().Generation; n != 2 {
		t.Errorf("generation %d: the hub switches back and forth", n)
	}

	// After a reset of all Sentinels, the epoch starts at 0.
	behind.say(sighting{promoted.Addr(), 0})
	sentinel.say(sighting{promoted.Addr(), 0})
	promoted.Do("client", "kill", "type", "pubsub")
	h.awaitGeneration(t, 3)
	h.awaitDelivery(t, promoted, "y")
}

func TestSentinelErrorsAreExplained(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	sentinel := redistest.StartSentinels(t, 1, "main", primary)[0]
	locked := redistest.StartSentinels(t, 1, "main", primary, "requirepass sentinel-secret")[0]
	down := redistest.Start(t)
	down.Kill()
	frozen := redistest.Start(t)
	frozen.Freeze()
	defer frozen.Thaw()
	for url, want := range map[string]string{
		"redis+sentinel://" + down.Addr() + "/main":                 "no Sentinel responds",
		"redis+sentinel://" + frozen.Addr() + "/main":               "no Sentinel responds",
		sentinelURL(down, sentinel) + "x":                           "do not know a primary with this name",
		"redis+sentinel://" + primary.Addr() + "/main":              "is not a Sentinel",
		sentinelURL(locked):                                         "lookup of the primary at the Sentinel " + locked.Addr() + " failed: Redis requires a password",
		"redis+sentinel://:wrong-secret@" + locked.Addr() + "/main": "lookup of the primary at the Sentinel " + locked.Addr() + " failed: Redis rejected the user or password",
	} {
		h := start(t, parse(t, url, ServerOptions{AnswerTimeout: 500 * time.Millisecond}), nil)
		h.log.await(t, "WARN redis subscription failed", want)
		h.stop()
		h.log.warnings(t, 1)
		h.log.mustNotContain(t, "secret")
	}
}

// The hint for a user of the Sentinels without permissions is sufficient.
func TestPermissionOfTheSentinelsIsExplained(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t, "--requirepass", "secret")
	sentinel := redistest.StartSentinels(t, 1, "main", primary, "sentinel auth-pass main secret", "user hub on >sentinel-secret -@all", "user default on nopass -@all")[0]
	const grant = "+sentinel|get-master-addr-by-name +sentinel|master"
	for _, test := range []struct {
		user string
		opts ServerOptions
	}{
		{"hub", ServerOptions{Password: "secret", SentinelPassword: "sentinel-secret"}},
		{"default", ServerOptions{Password: "secret"}},
	} {
		url := "redis+sentinel://" + sentinel.Addr() + "/main"
		if test.user != "default" {
			url += "?sentinel_user=" + test.user
		}
		h := start(t, parse(t, url, test.opts), nil)
		h.log.await(t, "WARN redis subscription failed", "reason=right", "user "+test.user+" is not allowed to look up the primary at the Sentinel "+sentinel.Addr(), "in each Sentinel, ACL SETUSER "+test.user+" "+grant)
		sentinel.Do("acl", "setuser", test.user, "+sentinel|get-master-addr-by-name", "+sentinel|master")
		h.awaitGeneration(t, 1)
		h.stop()
		h.log.warnings(t, 1)
	}
}

// Sentinels often do not have a password although Redis has one. Sometimes they have the same one.
func TestPasswordIsSentToASentinelThatRequiresIt(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t, "--requirepass", "secret")
	open := redistest.StartSentinels(t, 1, "main", primary, "sentinel auth-pass main secret")[0]
	locked := redistest.StartSentinels(t, 1, "main", primary, "sentinel auth-pass main secret", "requirepass secret")[0]
	for _, sentinel := range []*redistest.Server{open, locked} {
		h := start(t, parse(t, "redis+sentinel://"+sentinel.Addr()+"/main", ServerOptions{Password: "secret"}), func(c *PubSubConfig) { c.ProbeEvery = 50 * time.Millisecond })
		h.awaitGeneration(t, 1)
		eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
		h.awaitDelivery(t, primary, "x")
		h.stop()
		h.log.warnings(t, 0)
		h.log.mustNotContain(t, "secret")
		eventually(t, "no connection was left", func() bool { return len(connections(primary)) == 0 })
	}
}

// A Sentinel accepts subscriptions, but nothing is published there.
func TestSentinelIsNotUsedAsRedis(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinels(t, 1, "main", redistest.Start(t))[0]
	for _, scheme := range []string{"redis", "redis+cluster"} {
		url := scheme + "://" + sentinel.Addr()
		want := []string{"reason=sentinel", "use redis+sentinel://" + sentinel.Addr() + "/"}
		h := start(t, parse(t, url, ServerOptions{}), nil)
		h.log.await(t, append(want, "WARN redis subscription failed")...)
		var log logbook
		followLater(t, parse(t, url, ServerOptions{}), func(c *StreamConfig) { c.Logger = slog.New(&log) })
		log.await(t, append(want, "WARN redis subscription failed")...)
		if h.Stats().Generation != 0 {
			t.Error(h.log)
		}
		commands := NewCommands(parse(t, url, ServerOptions{}))
		defer commands.Close()
		if _, err := commands.Publish(t.Context(), "user-42", "x"); err == nil || !strings.Contains(err.Error(), want[1]) {
			t.Errorf("Publish: %v", err)
		}
	}
}

// HELLO exists since Redis 6, and may be renamed. Then INFO shows that the server is a Sentinel.
func TestSentinelWithoutHelloIsNotUsedAsRedis(t *testing.T) {
	t.Parallel()
	addr := redistest.StartFake(t, func(command ...string) string {
		if command[0] == "info" {
			const text = "# Server\r\nredis_mode:sentinel\r\n"
			return fmt.Sprintf("$%d\r\n%s", len(text), text)
		}
		return "-ERR unknown command"
	}, false)
	start(t, parse(t, "redis://"+addr, ServerOptions{}), nil).log.await(t, "WARN redis subscription failed", "reason=sentinel")
}
