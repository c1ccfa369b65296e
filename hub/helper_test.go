package hub_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"usercast/hub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// encode returns readable wire bytes: "payload", "topic/payload" for clients with the topic in the event's name,
// "gap reason".
func encode(dst []byte, e hub.Entry, named bool) []byte {
	switch {
	case e.Gap != 0:
		return fmt.Append(dst, "gap ", e.Gap)
	case named:
		return fmt.Append(dst, e.Topic, "/", e.Payload)
	}
	return append(dst, e.Payload...)
}

// newPubSub returns a hub without limits and history, unless cfg sets them. It encodes with encode, unless cfg sets
// an Encoder. At the end of the test, the counters must add up.
func newPubSub(t testing.TB, cfg hub.Config) *hub.PubSub {
	t.Helper()
	h := hub.NewPubSub(testConfig(cfg))
	closeAtEnd(t, h.Hub)
	return h
}

// newStreamFeed is newPubSub for a stream feed.
func newStreamFeed(t testing.TB, cfg hub.Config, query func(*hub.Query)) *hub.StreamFeed {
	t.Helper()
	h := hub.NewStreamFeed(testConfig(cfg), query)
	closeAtEnd(t, h.Hub)
	return h
}

func testConfig(cfg hub.Config) hub.Config {
	if cfg.Encode == nil {
		cfg.Encode = encode
	}
	return hub.Unlimited(cfg)
}

func closeAtEnd(t testing.TB, h *hub.Hub) {
	t.Cleanup(func() {
		h.Close()
		checkConservation(t, h)
	})
}

func checkConservation(t testing.TB, h *hub.Hub) {
	t.Helper()
	s := h.Stats()
	var discarded, ended uint64
	for _, n := range s.FramesDiscarded {
		discarded += n
	}
	for _, n := range s.Disconnects {
		ended += n
	}
	if s.FramesQueued < 0 || s.FramesEnqueued != s.Deliveries+discarded+uint64(s.FramesQueued) {
		t.Errorf("enqueued %d != delivered %d + discarded %d + queued %d",
			s.FramesEnqueued, s.Deliveries, discarded, s.FramesQueued)
	}
	if s.Connects != ended+uint64(s.Clients) {
		t.Errorf("connects %d != disconnects %d + clients %d", s.Connects, ended, s.Clients)
	}
	if s.QueueBytes < 0 {
		t.Errorf("%d bytes queued", s.QueueBytes)
	}
}

// A listener is a client whose consumer does nothing: the test calls Take.
type listener struct {
	*hub.Client
	wakes, interrupts atomic.Int32
	onWake            func() // set before the first message; nil: none
}

func (l *listener) Wake() {
	l.wakes.Add(1)
	if l.onWake != nil {
		l.onWake()
	}
}
func (l *listener) Interrupt() { l.interrupts.Add(1) }

// A registry is a hub of either kind.
type registry interface {
	Register(hub.Options) (*hub.Client, error)
}

// listen registers a client that is asleep after an empty Take.
func listen(t testing.TB, h registry, o hub.Options) *listener {
	t.Helper()
	l := register(t, h, o)
	if frames, reason := l.Take(nil); o.Resume == "" && (frames != nil || reason != 0) {
		t.Fatalf("a new client has %d frames, reason %v", len(frames), reason)
	}
	return l
}

// register registers a client that has not called Take yet.
func register(t testing.TB, h registry, o hub.Options) *listener {
	t.Helper()
	l := new(listener)
	o.Consumer = l
	var err error
	if l.Client, err = h.Register(o); err != nil {
		t.Fatal(err)
	}
	return l
}

// drain takes and settles all queued frames until Take returns nil, and returns their texts and the reason.
func (l *listener) drain() (texts []string, reason hub.Reason) {
	for {
		frames, reason := l.Take(nil)
		if frames == nil {
			return texts, reason
		}
		for _, f := range frames {
			texts = append(texts, string(f.Wire))
		}
		l.Settle(frames, len(frames))
	}
}

// wantFrames drains l and compares the frames.
func wantFrames(t testing.TB, l *listener, want ...string) {
	t.Helper()
	got, _ := l.drain()
	if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("got frames %q, want %q", got, want)
	}
}

func wantReason(t testing.TB, l *listener, want hub.Reason) {
	t.Helper()
	if got := l.Reason(); got != want {
		t.Errorf("reason %v, want %v", word(got), word(want))
	}
}

// describe names a recipient in the name of a test.
func describe(to hub.Recipient) string {
	if to.Group {
		return "group " + to.Name
	}
	return "user " + to.Name
}

func word(c hub.Reason) string {
	if c == 0 {
		return "open"
	}
	return c.String()
}
