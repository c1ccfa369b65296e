package redis

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
)

// A fleetHub is a hub with its feed.
type fleetHub struct {
	*hub.PubSub
	feed *PubSub
	log  *logbook
	stop func() // ends Run and waits for it
}

// startHub runs a hub until the test ends, and waits until it has received its first marker, unless change makes it write
// none. Unless change sets them, it makes no probes, and writes markers often. It subscribes to users and groups.
func startHub(t *testing.T, server *Server, change func(*PubSubConfig)) *fleetHub {
	t.Helper()
	h := &fleetHub{log: &logbook{}}
	h.PubSub = hub.NewPubSub(hub.Config{
		MaxClients: hub.NoLimit, MaxClientsPerUser: hub.NoLimit, BroadcastUser: "*", HistoryPerUser: 1000, HistoryAge: time.Minute, HistoryBytes: 16 << 20, GapSpread: 10 * time.Millisecond,
		Encode: encodeText,
	})
	cfg := PubSubConfig{
		Server: server, Hub: h.PubSub, Channels: Channels{Groups: "group-"}, Logger: slog.New(h.log), BackoffMax: 200 * time.Millisecond,
		ProbeEvery: time.Hour, PingAfter: time.Hour, markEvery: 100 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.feed, err = NewPubSub(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = h.feed.Run(ctx) })
	h.stop = func() { cancel(); running.Wait() }
	t.Cleanup(func() {
		h.stop()
		h.Close()
		if t.Failed() {
			t.Logf("log of %s:\n%s", cfg.Name, h.log)
		}
	})
	eventually(t, "the hub was subscribed and knew a marker", func() bool { s := h.feed.Stats(); return s.Connected && s.Marked })
	return h
}

// encodeText encodes an entry as "payload id <id>" or "gap reason id <id>".
func encodeText(dst []byte, e hub.Entry, _ bool) []byte {
	if e.Gap != 0 {
		dst = fmt.Append(dst, "gap ", e.Gap)
	} else {
		dst = append(dst, e.Payload...)
	}
	return e.AppendID(append(dst, " id "...))
}

// A visitor is an open stream of a hub.
type visitor struct {
	client *hub.Client
	wake   chan struct{}
	ended  chan struct{}

	mu     sync.Mutex
	frames []string // "payload" or "gap reason"
	ids    []string // of the frames
	id     string   // of the newest frame, or with which the stream was opened
}

func (p *visitor) Wake()      { poke(p.wake) }
func (p *visitor) Interrupt() {}

// open opens a stream, which ends with the test or with leave. A page with an id resumes.
func (h *fleetHub) open(t *testing.T, user, id string, groups ...string) *visitor {
	t.Helper()
	return openVisitor(t, h.Hub, hub.Options{User: user, Groups: groups, Resume: id})
}

func openVisitor(t *testing.T, h *hub.Hub, o hub.Options) *visitor {
	t.Helper()
	p := &visitor{wake: make(chan struct{}, 1), ended: make(chan struct{}), id: o.Resume}
	o.Consumer = p
	var err error
	if p.client, err = h.Register(o); err != nil {
		t.Fatal(err)
	}
	if o.Resume == "" {
		p.id = string(h.AppendID(nil, p.client.Opening()))
	}
	go func() {
		defer close(p.ended)
		for {
			frames, reason := p.client.Take(nil)
			for _, f := range frames {
				p.mu.Lock()
				text, id, _ := strings.Cut(string(f.Wire), " id ")
				p.frames, p.ids, p.id = append(p.frames, text), append(p.ids, id), id
				p.mu.Unlock()
			}
			p.client.Settle(frames, len(frames))
			switch {
			case reason != 0:
				return
			case frames == nil:
				<-p.wake
			}
		}
	}()
	t.Cleanup(func() { p.leave() })
	return p
}

// leave closes the stream and returns its last id.
func (p *visitor) leave() (id string) {
	p.client.End(hub.ReasonClosed)
	<-p.ended
	return p.id
}

// await waits until the frames from the beginning are as wanted.
func (p *visitor) await(t *testing.T, want ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		got := p.seen()
		if slices.Equal(got, want) {
			return
		}
		if len(got) > len(want) || time.Now().After(deadline) {
			t.Fatalf("received %q, want %q", got, want)
		}
	}
}

func (p *visitor) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.frames)
}

// position returns the id of the newest frame.
func (p *visitor) position() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.id
}

// A valve is a relay to a server that can hold back what a hub receives.
type valve struct {
	*redistest.Relay
	mu sync.Mutex // held while nothing passes
}

func startValve(t *testing.T, server *redistest.Server) *valve {
	v := &valve{}
	v.Relay = redistest.StartDamagingRelay(t, server.Addr(), func(reply []byte) []byte {
		v.mu.Lock()
		defer v.mu.Unlock()
		return reply
	})
	return v
}

// publish publishes messages for user 42.
func publish(server *redistest.Server, payloads ...string) {
	for _, payload := range payloads {
		server.Do("publish", "user-42", payload)
	}
}

// R6: A hub that is behind does not know yet what a page has received elsewhere. It waits for the reply to its own PING.
func TestR6BehindHubWaitsForItsPing(t *testing.T) {
	t.Parallel()
	for name, userinfo := range map[string]string{"with PING": "", "PING is not allowed": "app:secret@"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.Do("acl", "setuser", "app", "on", ">secret", "+@all", "-ping", "&*")
			v := startValve(t, server)
			a := startHub(t, parse(t, server.URL(), ServerOptions{}), nil)
			b := startHub(t, parse(t, "redis://"+userinfo+v.Addr(), ServerOptions{}), nil)
			p := a.open(t, "42", "")
			publish(server, "1")
			p.await(t, "1")

			v.mu.Lock()
			var held sync.Once
			release := func() { held.Do(v.mu.Unlock) }
			t.Cleanup(release) // before the relay stops
			publish(server, "2", "3")
			p.await(t, "1", "2", "3")
			ahead := b.open(t, "42", p.position()) // counts further than b has
			a.feed.WriteMarker(t.Context())
			eventually(t, "the new marker was received", func() bool { return !strings.HasPrefix(newestID(a), strings.Split(p.position(), "-")[0]) })
			publish(server, "4")
			p.await(t, "1", "2", "3", "4")
			unknown := b.open(t, "42", p.leave()) // a marker that b does not know
			b.open(t, "42", "abcdefghijklm-7")    // nobody knows it
			eventually(t, "all three wait", func() bool { return waitingClients(b) == 3 })
			publish(server, "5")
			if seen := slices.Concat(ahead.seen(), unknown.seen()); len(seen) > 0 {
				t.Errorf("received %q before the place was known", seen)
			}
			release()
			ahead.await(t, "4", "5")
			unknown.await(t, "5")
			publish(server, "6")
			unknown.await(t, "5", "6")
			ahead.await(t, "4", "5", "6")
			if s := b.feed.Stats(); s.Generation != 1 {
				t.Errorf("generation %d", s.Generation)
			}
			if n := b.log.count("WARN") - b.log.count("WARN redis markers not published or not received"); n > 1 { // they are held back as well
				t.Errorf("%d warnings", n)
			}
		})
	}
}

// R6: While Redis runs a long script, it refuses the PING, and the subscription that replaces it. The hub repeats it, so that
// clients do not wait until the generation ends.
func TestR6RefusedPingIsRepeated(t *testing.T) {
	t.Parallel()
	for name, userinfo := range map[string]string{"with PING": "", "PING is not allowed": "app:secret@"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "--busy-reply-threshold", "1")
			server.Do("acl", "setuser", "app", "on", ">secret", "+@all", "-ping", "&*")
			var refused atomic.Int64
			relay := redistest.StartDamagingRelay(t, server.Addr(), func(reply []byte) []byte {
				if bytes.HasPrefix(reply, []byte("-BUSY")) {
					refused.Add(1)
				}
				return reply
			})
			h := startHub(t, parse(t, "redis://"+userinfo+relay.Addr(), ServerOptions{}), func(c *PubSubConfig) {
				c.markEvery, c.lookUpEvery = time.Hour, 10*time.Millisecond
			})
			var running sync.WaitGroup
			running.Go(func() { _, _ = server.Try("eval", "while true do end", "0") })
			eventually(t, "the script ran", func() bool { _, err := server.Try("ping"); return err != nil })
			p := h.open(t, "42", "abcdefghijklm-1")
			eventually(t, "Redis refused it several times", func() bool { return refused.Load() >= 3 })
			server.Do("script", "kill")
			running.Wait()
			p.await(t, "gap unknown-id")
			h.open(t, "42", "abcdefghijklm-2").await(t, "gap unknown-id")
			if s := h.feed.Stats(); s.Generation != 1 {
				t.Errorf("generation %d", s.Generation)
			}
			if n := h.log.count("command=PING"); n != strings.Count(userinfo, "app") {
				t.Errorf("the log names a missing permission %d times", n)
			}
		})
	}
}

// newestID returns the id of the newest place of a hub.
func newestID(h *fleetHub) string {
	c, err := h.Register(hub.Options{User: "observer", Consumer: &visitor{wake: make(chan struct{}, 1)}})
	if err != nil {
		return err.Error()
	}
	defer c.End(hub.ReasonClosed)
	return string(h.AppendID(nil, c.Opening()))
}

// waitingClients returns how many clients of a hub wait for their places.
func waitingClients(h *fleetHub) (n int) {
	for _, c := range h.ClientsOf(hub.User("42")) {
		if _, ok := c.Position(); !ok {
			n++
		}
	}
	return n
}

// R7: A marker that is unknown may be one of a server that this hub has not found yet. A new connection finds it.
func TestR7OtherPrimaryIsANewGeneration(t *testing.T) {
	t.Parallel()
	old, promoted := redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, old.Addr())
	b := startHub(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) {
		c.ProbeEvery = 20 * time.Second // a tenth is how long it takes to find that all connections reach the other server
	})
	p := b.open(t, "42", "")
	publish(old, "1")
	p.await(t, "1")
	relay.SetTarget(promoted.Addr())
	a := startHub(t, parse(t, relay.URL(), ServerOptions{}), nil)
	q := a.open(t, "42", "")
	publish(promoted, "2")
	q.await(t, "2")
	publish(old, "nobody expects this") // the old primary still works
	p.await(t, "1", "nobody expects this")
	q = b.open(t, "42", q.leave())
	q.await(t, "gap unknown-id") // b has subscribed to the new primary later than the marker
	p.await(t, "1", "nobody expects this", "gap redis-reconnect")
	b.log.once(t, "WARN redis subscription lost", "reason=moved", "another primary")
	if s := b.feed.Stats(); s.Generation != 2 {
		t.Errorf("generation %d", s.Generation)
	}
	// The page takes the position of the gap along. It is one of the new primary, so nothing arrives twice.
	publish(promoted, "3")
	q.await(t, "gap unknown-id", "3")
	a.open(t, "42", q.leave()).await(t)
	publish(promoted, "4")
	back := a.open(t, "42", q.position())
	back.await(t, "4")
}

// R7: Clients share look-ups: each begins after they came, and at most one per second is made.
func TestR7OneLookUpPerSecond(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	h := startHub(t, parse(t, relay.URL(), ServerOptions{}), nil)
	before, since := relay.Accepted(), time.Now()
	for n := 0; time.Since(since) < 3*time.Second; n++ {
		p := h.open(t, "42", fmt.Sprintf("abcdefghijklm-%d", n))
		if n%20 == 0 {
			p.await(t, "gap unknown-id")
			p.leave()
		}
		time.Sleep(2 * time.Millisecond)
	}
	eventually(t, "no client waits", func() bool { return waitingClients(h) == 0 })
	made, most := relay.Accepted()-before, int(time.Since(since)/time.Second)+1
	if made < 1 || made > most {
		t.Errorf("%d look-ups in %v, want at most %d", made, time.Since(since), most)
	}
	h.log.warnings(t, 0)

	// A PING per client is not necessary either: one is in flight at a time. Malformed ids wait for nothing.
	pings := callsOf(t, server, "ping")
	relay.SetTarget("127.0.0.1:1")
	for _, id := range []string{"x", "1526919030474-0", "abcdefghijklm-01", h.Boot() + "-99999"} {
		h.open(t, "42", id).await(t, "gap unknown-id")
	}
	if n := callsOf(t, server, "ping"); n != pings {
		t.Errorf("%d PINGs for malformed ids", n-pings)
	}
}

// R7: While no new connection can be made, the client waits. It receives the gap when one was made.
func TestR7LookUpIsRepeated(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	h := startHub(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) { c.lookUpEvery = 50 * time.Millisecond })
	down := redistest.Start(t)
	down.Kill()
	relay.SetTarget(down.Addr())
	before, pings := relay.Accepted(), callsOf(t, server, "ping")
	p := h.open(t, "42", "abcdefghijklm-1")
	eventually(t, "several look-ups failed", func() bool { return relay.Accepted() >= before+4 })
	if n := callsOf(t, server, "ping") - pings; n > 1 {
		t.Errorf("%d PINGs for one client", n)
	}
	publish(server, "x")
	if got := p.seen(); len(got) > 0 {
		t.Errorf("received %q", got)
	}
	relay.SetTarget(server.Addr())
	p.await(t, "gap unknown-id")
	publish(server, "y")
	p.await(t, "gap unknown-id", "y")
}

// Where an address leads to several servers, another server is no reason to leave the one of the subscription.
func TestR7NoLookUpAtAnAddressOfSeveralServers(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	one, two := redistest.StartReplica(t, primary), redistest.StartReplica(t, primary)
	relay := redistest.StartRelay(t, one.Addr())
	h := startHub(t, parse(t, relay.URL(), ServerOptions{}), func(c *PubSubConfig) {
		c.ProbeEvery = 30 * time.Second // a hundredth is the time between the connections that recognize it
		c.markEvery = time.Hour         // a marker is another connection
		c.BackoffMin = 50 * time.Millisecond
	})
	relay.SetTargets(two.Addr(), two.Addr(), one.Addr())
	h.open(t, "42", "abcdefghijklm-1").await(t, "gap unknown-id")
	if s := h.feed.Stats(); s.Generation != 1 {
		t.Errorf("generation %d", s.Generation)
	}
	h.log.once(t, "WARN redis address leads to several servers")
	before := callsOf(t, one, "info") + callsOf(t, two, "info")
	for n := range 5 {
		h.open(t, "42", fmt.Sprintf("abcdefghijklm-%d", n)).await(t, "gap unknown-id")
	}
	if n := callsOf(t, one, "info") + callsOf(t, two, "info") - before; n > 2 { // those of callsOf
		t.Errorf("%d calls of INFO", n)
	}
}
