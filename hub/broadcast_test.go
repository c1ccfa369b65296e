package hub_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

// A client receives a pending broadcast before anything later: a message to its user, a gap, its end, a
// position.
func TestInvariant6PendingBroadcastComesFirst(t *testing.T) {
	for _, to := range []hub.Recipient{hub.User("*"), hub.Group("g")} {
		t.Run(describe(to), func(t *testing.T) { testPendingComesFirst(t, to) })
	}
}

func testPendingComesFirst(t *testing.T, to hub.Recipient) {
	for name, then := range map[string]func(*hub.PubSub, *listener) []string{
		"message": func(h *hub.PubSub, l *listener) []string {
			h.Publish(hub.User(l.User()), "", "mine")
			return []string{"all", "mine"}
		},
		"message to a small group": func(h *hub.PubSub, l *listener) []string {
			h.Publish(hub.Group(l.User()), "", "ours")
			return []string{"all", "ours"}
		},
		"gap": func(h *hub.PubSub, _ *listener) []string {
			h.GapForAll(hub.GapRedisReconnect)
			hub.AwaitBroadcasts(h.Hub) // for one client, catching up does not enqueue for the others
			return []string{"all", "gap redis-reconnect"}
		},
		"kick": func(h *hub.PubSub, l *listener) []string { h.Disconnect(l.User()); return []string{"all"} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
			all := make([]*listener, 1000)
			for i := range all {
				all[i] = listen(t, h, hub.Options{User: fmt.Sprint(i), Groups: []string{fmt.Sprint(i), "g"}})
			}
			if n := h.Publish(to, "", "all"); n != 1 {
				t.Errorf("reaches %d", n)
			}
			for _, l := range all {
				want := then(h, l)
				wantFrames(t, l, want...)
				if name == "gap" { // the gap is for all
					break
				}
			}
			hub.AwaitBroadcasts(h.Hub)
			for _, l := range all {
				l.End(hub.ReasonClosed)
			}
		})
	}
}

// A client's position is before its pending broadcasts.
func TestInvariant15PositionIsBeforePendingBroadcasts(t *testing.T) {
	for _, to := range []hub.Recipient{hub.User("*"), hub.Group("g")} {
		t.Run(describe(to), func(t *testing.T) {
			h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
			var all []*listener
			for range 1000 {
				all = append(all, register(t, h, hub.Options{User: "42", Groups: []string{"g"}}))
			}
			h.Publish(to, "", "all")
			for _, l := range all {
				if id, ok := l.Position(); ok {
					t.Fatalf("complete up to %v with nothing taken", id)
				}
				wantFrames(t, l, "all")
				if id, ok := l.Position(); !ok || id.Ms != 1 {
					t.Fatalf("position %v, %v", id, ok)
				}
			}
		})
	}
}

// A client that registers while a broadcast is pending does not receive it. A client that ends does not
// cause another client to miss it.
func TestBroadcastWhileClientsComeAndGo(t *testing.T) {
	const stay, broadcasts = 500, 60
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 3})
	var all []*listener
	for i := range stay {
		all = append(all, register(t, h, hub.Options{User: fmt.Sprint(i)}))
	}
	done := make(chan struct{})
	var guests sync.WaitGroup
	for range 2 {
		guests.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				l := register(t, h, hub.Options{User: "guest"})
				if n%3 == 0 {
					l.drain()
				}
				l.End(hub.ReasonClosed)
			}
		})
	}
	var want []string
	for i := range broadcasts {
		text := fmt.Sprint(i)
		h.Publish(hub.User("*"), "", text)
		want = append(want, text)
	}
	close(done)
	guests.Wait()
	hub.AwaitBroadcasts(h.Hub)
	for _, l := range all {
		wantFrames(t, l, want...)
	}
}

// A closed hub does not start anything, and its remaining clients receive everything.
func TestCloseDistributesBroadcasts(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
	var all []*listener
	for range 1000 {
		all = append(all, listen(t, h, hub.Options{User: "42", Groups: []string{"g"}}))
	}
	h.Publish(hub.User("*"), "", "before")
	h.Publish(hub.Group("g"), "", "before, group")
	h.Close()
	h.Publish(hub.User("*"), "", "after")
	h.Publish(hub.Group("g"), "", "after, group")
	for _, l := range all {
		wantFrames(t, l, "before", "before, group", "after", "after, group")
	}
}

// The next message does not wait until a broadcast has been enqueued for very many clients. The same holds
// for a broadcast that no topic filter accepts, and for a gap.
func TestBroadcastDoesNotDelayOthers(t *testing.T) {
	const clients = 5_000
	for name, publish := range map[string]func(*hub.PubSub){
		"message":                  func(h *hub.PubSub) { h.Publish(hub.User("*"), "a", "all") },
		"message without a client": func(h *hub.PubSub) { h.Publish(hub.User("*"), "b", "all") },
		"gap for all":              func(h *hub.PubSub) { h.GapForAll(hub.GapRedisReconnect) },
		"gap of a broadcast":       func(h *hub.PubSub) { h.GapFor(hub.User("*"), "a", hub.GapTooLarge) },
		"group":                    func(h *hub.PubSub) { h.Publish(hub.Group("g"), "a", "all") },
		"group without a client":   func(h *hub.PubSub) { h.Publish(hub.Group("g"), "b", "all") },
		"gap of a group":           func(h *hub.PubSub) { h.GapFor(hub.Group("g"), "a", hub.GapTooLarge) },
		"gap of those that resumed": func(h *hub.PubSub) {
			h.Doubt(markerName("b")) // not known: the start of the generation
		},
	} {
		t.Run(name, func(t *testing.T) {
			took := func(fanOut, attempts int, enough time.Duration) (quickest time.Duration) {
				h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: fanOut})
				h.Begin()
				resume := text(h.Hub, register(t, h, hub.Options{User: "first"}).Opening())
				all := make([]*listener, clients)
				for i := range all {
					all[i] = listen(t, h, hub.Options{User: fmt.Sprint(i), Groups: []string{"g"}, Topics: []string{"a"}, Resume: resume})
				}
				quickest = time.Hour
				for ; attempts > 0 && quickest > enough; attempts-- {
					start := time.Now()
					publish(h)
					quickest = min(quickest, time.Since(start))
					hub.AwaitBroadcasts(h.Hub)
					for _, l := range all {
						l.drain()
					}
				}
				for _, l := range all {
					l.End(hub.ReasonClosed)
				}
				return quickest
			}
			at := took(hub.NoLimit, 5, 0)
			if inParts := took(64, 200, at/4); inParts > at/4 { // most attempts may be delayed by other processes
				t.Errorf("the publisher waits for %v in parts, and for %v in one part", inParts, at)
			}
		})
	}
}

// A client that receives a message while a gap is being distributed receives the gap first. Clients without
// a message receive the gap as well.
func TestPendingGapReachesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1, GapSpread: time.Second})
		all := listenToGaps(t, h, 1000)
		h.GapForAll(hub.GapRedisReconnect)
		for i := range 100 {
			h.Publish(hub.User(fmt.Sprint(10*i)), "", "hello")
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for i, l := range all {
			want := "[gap redis-reconnect]"
			if i%10 == 0 {
				want = "[gap redis-reconnect hello]"
			}
			if got := fmt.Sprint(l.received()); got != want {
				t.Fatalf("client %d got %s, want %s", i, got, want)
			}
		}
	})
}

// A publisher that is faster than the distribution of broadcasts distributes them itself, so that their number
// is bounded.
func TestPendingBroadcastsAreBounded(t *testing.T) {
	payload := strings.Repeat("x", 1000)
	for name, test := range map[string]struct {
		publish func(*hub.PubSub)
		frames  int // per client
	}{
		"message":                   {func(h *hub.PubSub) { h.Publish(hub.User("*"), "", payload) }, 1000},
		"message to a group":        {func(h *hub.PubSub) { h.Publish(hub.Group("g"), "", payload) }, 1000},
		"gap for all":               {func(h *hub.PubSub) { h.GapForAll(hub.GapRedisReconnect) }, 1000},
		"gap of a group":            {func(h *hub.PubSub) { h.GapFor(hub.Group("g"), "", hub.GapTooLarge) }, 1000},
		"gap of those that resumed": {func(h *hub.PubSub) { h.Doubt(markerName("b")) }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
			all := make([]*listener, 100)
			for i := range all {
				all[i] = register(t, h, hub.Options{User: fmt.Sprint(i), Groups: []string{"g"}})
			}
			for range 1000 {
				test.publish(h)
				if n := hub.PendingBroadcasts(h.Hub); n > 64 {
					t.Fatalf("%d pending broadcasts", n)
				}
			}
			hub.AwaitBroadcasts(h.Hub)
			for _, l := range all {
				if got, _ := l.drain(); len(got) != test.frames {
					t.Fatalf("%d frames", len(got))
				}
			}
		})
	}
}
