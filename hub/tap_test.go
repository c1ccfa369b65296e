package hub_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"usercast/hub"
)

// received takes all entries of a tap, as "topic/payload", with the prefix "all " for all users, or "gap reason", and
// the number of skipped entries.
func received(t testing.TB, tap *hub.Tap) string {
	t.Helper()
	entries, skipped := tap.Take()
	var texts []string
	for _, e := range entries {
		text := e.Topic + "/" + e.Payload
		if e.Gap != 0 {
			text = fmt.Sprint("gap ", e.Gap)
		}
		if e.ToAll {
			text = "all " + text
		}
		texts = append(texts, text)
	}
	if skipped > 0 {
		texts = append(texts, fmt.Sprint("skipped ", skipped))
	}
	return strings.Join(texts, ", ")
}

func isReady(tap *hub.Tap) bool {
	select {
	case <-tap.Ready():
		return true
	default:
		return false
	}
}

func TestTapReceivesWhatItsUserWould(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*"})
	tap, other := h.Tap(hub.User("42")), h.Tap(hub.User("7"))
	if isReady(tap) {
		t.Error("a new tap is ready")
	}
	h.Publish(hub.User("42"), "a", "one") // the user does not have a client
	listen(t, h, hub.Options{User: "42", Topics: []string{"b"}})
	h.Publish(hub.User("42"), "a", "two") // the client's topic filter rejects it
	h.Publish(hub.User("7"), "", "not for 42")
	h.Publish(hub.User("*"), "news", "to all")
	h.GapFor(hub.User("42"), "a", hub.GapTooLarge)
	h.GapForAll(hub.GapRedisReconnect)
	if !isReady(tap) || isReady(tap) {
		t.Error("a tap must be ready once for all that it holds")
	}
	if got, want := received(t, tap), "a/one, a/two, all news/to all, gap too-large, all gap redis-reconnect"; got != want {
		t.Errorf("received %q, want %q", got, want)
	}
	if got, want := received(t, other), "/not for 42, all news/to all, all gap redis-reconnect"; got != want {
		t.Errorf("the other received %q, want %q", got, want)
	}
	tap.Close()
	h.Publish(hub.User("42"), "a", "later")
	if got := received(t, tap); got != "" {
		t.Errorf("a closed tap received %q", got)
	}
	h.Publish(hub.User("7"), "a", "later")
	if got := received(t, other); got != "a/later" {
		t.Errorf("the other received %q", got)
	}
}

// A tap that is not read is bounded. It returns the number of skipped entries after the stored entries and before later
// ones.
func TestInvariant14TapIsBoundedInBytes(t *testing.T) {
	for name, payload := range map[string]string{"many": "x", "large": strings.Repeat("x", 300<<10)} {
		t.Run(name, func(t *testing.T) {
			h := newPubSub(t, hub.Config{})
			tap := h.Tap(hub.User("42"))
			const published = 1000
			for range published {
				h.Publish(hub.User("42"), "", payload)
			}
			entries, skipped := tap.Take()
			bytes := 0
			for i, e := range entries {
				bytes += len(e.Payload)
				if e.ID.Ms != uint64(i+1) {
					t.Fatalf("entry %d has id %v", i, e.ID)
				}
			}
			if len(entries) > 256 || bytes > 1<<20 || len(entries)+int(skipped) != published {
				t.Errorf("%d entries of %d bytes held, %d skipped", len(entries), bytes, skipped)
			}
			h.Publish(hub.User("42"), "", "next")
			if got := received(t, tap); got != "/next" {
				t.Errorf("then received %q", got)
			}
		})
	}
	h := newPubSub(t, hub.Config{})
	tap := h.Tap(hub.User("42"))
	h.Publish(hub.User("42"), "", strings.Repeat("x", 2<<20)) // a single larger entry fits
	if entries, skipped := tap.Take(); len(entries) != 1 || skipped != 0 {
		t.Errorf("a large message: %d entries, %d skipped", len(entries), skipped)
	}
}

// A tap does not affect clients and counters.
func TestTapIsNotAStream(t *testing.T) {
	plain, tapped := newPubSub(t, hub.Config{BroadcastUser: "*"}), newPubSub(t, hub.Config{BroadcastUser: "*"})
	tapped.Tap(hub.User("42"))
	tapped.Tap(hub.User("unknown"))
	for _, h := range []*hub.PubSub{plain, tapped} {
		l := listen(t, h, hub.Options{User: "42"})
		if n := h.Publish(hub.User("42"), "a", "one") + h.Publish(hub.User("unknown"), "a", "two") + h.Publish(hub.User("*"), "", "three"); n != 2 {
			t.Errorf("published to %d clients, want 2", n)
		}
		wantFrames(t, l, "one", "three")
	}
	if a, b := fmt.Sprint(plain.Stats()), fmt.Sprint(tapped.Stats()); a != b {
		t.Errorf("a tap changes the counters:\n%s\n%s", a, b)
	}
}

func TestTapsComeAndGoWhileMessagesFlow(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	var taps sync.WaitGroup
	for range 8 {
		taps.Go(func() {
			for range 50 {
				tap := h.Tap(hub.User("42"))
				<-tap.Ready()
				if entries, _ := tap.Take(); len(entries) == 0 {
					t.Error("ready without entries")
				}
				tap.Close()
			}
		})
	}
	done := make(chan struct{})
	go func() { taps.Wait(); close(done) }()
	for {
		select {
		case <-done:
			return
		default:
			h.Publish(hub.User("42"), "", "x")
		}
	}
}

// A tap receives appended entries, but not loaded ones.
func TestTapOfAStreamFeed(t *testing.T) {
	h := newStreamFeed(t, hub.Config{HistoryBytes: 1 << 20}, func(*hub.Query) {})
	tap := h.Tap(hub.User("42"))
	h.Load(hub.ID{Ms: 1}, hub.ID{Ms: 2}, func(yield func(hub.Recipient, hub.Entry) bool) {
		yield(hub.User("42"), hub.Entry{ID: hub.ID{Ms: 2}, Payload: "old"})
	})
	h.Append(hub.User("42"), hub.Entry{ID: hub.ID{Ms: 3}, Topic: "a", Payload: "live"})
	h.Append(hub.User(""), hub.Entry{ID: hub.ID{Ms: 4}})
	h.Reset(hub.ID{Ms: 2})
	if got, want := received(t, tap), "a/live, all gap feed-reset"; got != want {
		t.Errorf("received %q, want %q", got, want)
	}
}
