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

func TestGapComesBeforeTheNextMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{GapSpread: time.Second})
		l := listen(t, h, hub.Options{User: "42"})
		h.Publish(hub.User("42"), "", "before")
		wantFrames(t, l, "before")
		h.GapForAll(hub.GapRedisReconnect)
		wakes := l.wakes.Load()
		h.Publish(hub.User("42"), "", "after")
		if l.wakes.Load() != wakes+1 {
			t.Error("the message waits for the spread gap")
		}
		wantFrames(t, l, "gap redis-reconnect", "after")
	})
}

// Pages that receive a gap fetch their state from the app. The spread prevents that all do so at the same time.
func TestGapIsSpread(t *testing.T) {
	tests := []struct {
		clients int
		spread  time.Duration
		want    time.Duration // time of the last gap
	}{
		{1, 5 * time.Second, 20 * time.Millisecond},
		{200, 5 * time.Second, 2 * time.Second}, // at most 100 per second
		{5000, 2 * time.Second, 2 * time.Second},
		{100, 0, 0},
	}
	gaps := map[string]func(*hub.PubSub){
		"of all":         func(h *hub.PubSub) { h.GapForAll(hub.GapRedisReconnect) },
		"of a broadcast": func(h *hub.PubSub) { h.GapFor(hub.User("*"), "", hub.GapTooLarge) },
	}
	for i := range 2 * len(tests) {
		test, name := tests[i/2], []string{"of all", "of a broadcast"}[i%2]
		announce := gaps[name]
		t.Run(fmt.Sprint(name, "/", test.clients, "/", test.spread), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newPubSub(t, hub.Config{GapSpread: test.spread, BroadcastUser: "*"})
				clients := listenToGaps(t, h, test.clients)
				announce(h)

				time.Sleep(test.want / 2)
				synctest.Wait()
				half := clients.count()
				time.Sleep(test.want/2 + 10*time.Millisecond)
				synctest.Wait()
				if n := clients.count(); n != test.clients {
					t.Fatalf("%d of %d received it after %v", n, test.clients, test.want)
				}
				if test.want >= time.Second && (half < test.clients*4/10 || half > test.clients*6/10) {
					t.Errorf("%d of %d received it at half the time", half, test.clients)
				}
			})
		})
	}
}

func TestSecondGapReachesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{GapSpread: time.Second})
		clients := listenToGaps(t, h, 1000)
		h.GapForAll(hub.GapRedisReconnect)
		time.Sleep(300 * time.Millisecond)
		h.GapForAll(hub.GapFeedReset)
		time.Sleep(1700*time.Millisecond + 20*time.Millisecond) // the rest of the first spread, and the second one
		synctest.Wait()
		for i, l := range clients {
			if got := strings.Join(l.received(), ", "); got != "gap redis-reconnect, gap feed-reset" {
				t.Fatalf("client %d received %q", i, got)
			}
		}
	})
}

// However often the connection to Redis is lost, a client waits for its gap for at most two times the spread.
func TestGapsDoNotPostponeEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{GapSpread: time.Second})
		clients := listenToGaps(t, h, 1000)
		for range 20 {
			h.GapForAll(hub.GapRedisReconnect)
			time.Sleep(100 * time.Millisecond)
		}
		synctest.Wait()
		if n := clients.count(); n != len(clients) {
			t.Errorf("%d of %d received it", n, len(clients))
		}
	})
}

// A gap for one user is not spread, because few clients receive it.
func TestGapForOneUser(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*"})
	one := listen(t, h, hub.Options{User: "1", Topics: []string{"a"}, Named: true})
	two := listen(t, h, hub.Options{User: "2"})
	h.GapFor(hub.User("1"), "a", hub.GapTooLarge)
	h.GapFor(hub.User("1"), "b", hub.GapTooLarge)
	if one.wakes.Load() != 1 || two.wakes.Load() != 0 {
		t.Errorf("woken %d and %d times", one.wakes.Load(), two.wakes.Load())
	}
	wantFrames(t, one, "gap too-large")
	wantFrames(t, two)
	h.GapFor(hub.User("*"), "b", hub.GapTooLarge)
	wantFrames(t, one)
	wantFrames(t, two, "gap too-large")
}

func TestGapsAreCountedWhenWritten(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	l, slow := listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "42"})
	h.GapForAll(hub.GapFeedReset)
	if n := h.Stats().Gaps[hub.GapFeedReset]; n != 0 {
		t.Errorf("%d gaps counted before any was written", n)
	}
	l.drain()
	slow.End(hub.ReasonSlow)
	s := h.Stats()
	if s.Gaps[hub.GapFeedReset] != 1 {
		t.Errorf("%d gaps counted, 1 was written", s.Gaps[hub.GapFeedReset])
	}
	if s.FramesEnqueued != 0 || s.Deliveries != 0 || s.DeliveryBytes != 0 || s.FramesDiscarded[hub.ReasonSlow] != 0 {
		t.Errorf("gaps are counted as messages: %+v", s)
	}
}

// A gapListener takes its frames as soon as it is woken.
type gapListener struct {
	*listener
	mu  sync.Mutex
	got []string
}

func (l *gapListener) take() {
	texts, _ := l.drain()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.got = append(l.got, texts...)
}

func (l *gapListener) received() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.got
}

type gapListeners []*gapListener

func listenToGaps(t *testing.T, h *hub.PubSub, n int) gapListeners {
	all := make(gapListeners, n)
	for i := range all {
		l := &gapListener{listener: listen(t, h, hub.Options{User: fmt.Sprint(i)})}
		l.onWake = func() { go l.take() }
		all[i] = l
	}
	return all
}

// count returns how many have received a frame. Call it after synctest.Wait.
func (all gapListeners) count() (n int) {
	for _, l := range all {
		if len(l.received()) > 0 {
			n++
		}
	}
	return n
}
