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

// A client gets a broadcast that is under way before whatever comes later: a message
// of its own, a gap, its end, a position.
func TestInvariant6PendingBroadcastComesFirst(t *testing.T) {
	for name, then := range map[string]func(*hub.PubSub, *listener) []string{
		"message": func(h *hub.PubSub, l *listener) []string {
			h.Publish(l.User(), "", "mine")
			return []string{"all", "mine"}
		},
		"gap": func(h *hub.PubSub, _ *listener) []string {
			h.GapForAll(hub.GapRedisReconnect)
			hub.HandedOut(h.Hub) // no look at one client hands it to another
			return []string{"all", "gap redis-reconnect"}
		},
		"kick": func(h *hub.PubSub, l *listener) []string { h.Disconnect(l.User()); return []string{"all"} },
	} {
		t.Run(name, func(t *testing.T) {
			h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
			all := make([]*listener, 1000)
			for i := range all {
				all[i] = listen(t, h, hub.Options{User: fmt.Sprint(i)})
			}
			if n := h.Publish("*", "", "all"); n != 1 {
				t.Errorf("reaches %d", n)
			}
			for _, l := range all {
				want := then(h, l)
				wantFrames(t, l, want...)
				if name == "gap" { // one is for all
					break
				}
			}
			hub.HandedOut(h.Hub)
			for _, l := range all {
				l.End(hub.ReasonClosed)
			}
		})
	}
}

// A client's position is before the broadcasts that it has yet to be handed.
func TestInvariant15PositionIsBeforePendingBroadcasts(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
	var all []*listener
	for range 1000 {
		all = append(all, register(t, h, hub.Options{User: "42"}))
	}
	h.Publish("*", "", "all")
	for _, l := range all {
		if id, ok := l.Position(); ok {
			t.Fatalf("complete up to %v with nothing taken", id)
		}
		wantFrames(t, l, "all")
		if id, ok := l.Position(); !ok || id.Seq != 1 {
			t.Fatalf("position %v, %v", id, ok)
		}
	}
}

// A client that registers while a broadcast is pending does not receive it; one that leaves makes
// no other client miss it.
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
		h.Publish("*", "", text)
		want = append(want, text)
	}
	close(done)
	guests.Wait()
	hub.HandedOut(h.Hub)
	for _, l := range all {
		wantFrames(t, l, want...)
	}
}

// A closed hub starts nothing any more, and the clients that are still there receive everything.
func TestCloseHandsOutBroadcasts(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
	var all []*listener
	for range 1000 {
		all = append(all, listen(t, h, hub.Options{User: "42"}))
	}
	h.Publish("*", "", "before")
	h.Close()
	h.Publish("*", "", "after")
	for _, l := range all {
		wantFrames(t, l, "before", "after")
	}
}

// What concerns very many clients does not keep the message behind it waiting for all of
// them: a broadcast, one that no topic filter accepts, a gap.
func TestBroadcastDoesNotHoldUpOthers(t *testing.T) {
	const clients = 5_000
	for name, publish := range map[string]func(*hub.PubSub){
		"message":                  func(h *hub.PubSub) { h.Publish("*", "a", "all") },
		"message without a client": func(h *hub.PubSub) { h.Publish("*", "b", "all") },
		"gap for all":              func(h *hub.PubSub) { h.GapForAll(hub.GapRedisReconnect) },
		"gap of a broadcast":       func(h *hub.PubSub) { h.GapFor("*", "a", hub.GapTooLarge) },
	} {
		t.Run(name, func(t *testing.T) {
			took := func(fanOut int) (quickest time.Duration) {
				h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: fanOut})
				all := make([]*listener, clients)
				for i := range all {
					all[i] = listen(t, h, hub.Options{User: fmt.Sprint(i), Topics: []string{"a"}})
				}
				quickest = time.Hour
				for range 5 { // other processes may be in the way of some
					start := time.Now()
					publish(h)
					quickest = min(quickest, time.Since(start))
					hub.HandedOut(h.Hub)
					for _, l := range all {
						l.drain()
					}
				}
				for _, l := range all {
					l.End(hub.ReasonClosed)
				}
				return quickest
			}
			at, inParts := took(0), took(64)
			if inParts > at/4 {
				t.Errorf("in parts, the publisher is held up for %v, in one go for %v", inParts, at)
			}
		})
	}
}

// Each message of a client that comes while a gap is handed out has the gap before it, and
// each client that has no message gets it as well.
func TestPendingGapReachesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1, GapSpread: time.Second})
		all := listenToGaps(t, h, 1000)
		h.GapForAll(hub.GapRedisReconnect)
		for i := range 100 {
			h.Publish(fmt.Sprint(10*i), "", "hello")
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

// A publisher faster than broadcasts are handed out does it himself, so that they do not
// pile up.
func TestPendingBroadcastsAreBounded(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 1})
	all := make([]*listener, 100)
	for i := range all {
		all[i] = register(t, h, hub.Options{User: fmt.Sprint(i)})
	}
	payload := strings.Repeat("x", 1000)
	for range 1_000 {
		h.Publish("*", "", payload)
		if n := hub.PendingBroadcasts(h.Hub); n > 64 {
			t.Fatalf("%d broadcasts under way", n)
		}
	}
	hub.HandedOut(h.Hub)
	for _, l := range all {
		if got, _ := l.drain(); len(got) != 1_000 {
			t.Fatalf("%d frames", len(got))
		}
	}
}
