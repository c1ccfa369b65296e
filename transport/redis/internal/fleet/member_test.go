package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/hub"
)

// A world is one Redis server with its hubs.
type world struct {
	t        *testing.T
	now      time.Duration
	hubs     []*testHub
	messages int
	names    map[hub.MarkerName]string // m1, m2, …
}

// A testHub is a Member with the calls that it makes. A Places call is recorded as a word such as "mark m1".
type testHub struct {
	*world
	*Member
	name    string
	calls   []string
	reports []Report
}

func newWorld(t *testing.T) *world { return &world{t: t, names: map[hub.MarkerName]string{}} }

// start starts a hub that is subscribed.
func (w *world) start(name string) *testHub {
	h := &testHub{world: w, name: name}
	h.Member = NewMember(Config{Places: h, Name: name, Version: "1.0", Load: func() (int, int) { return 3, 2 }})
	h.subscribe("run", "user-*")
	w.hubs = append(w.hubs, h)
	return h
}

func (h *testHub) subscribe(run string, patterns ...string) {
	h.Member.Begin(run, patterns)
	h.Subscribed()
}

func (h *testHub) record(call string, name hub.MarkerName) {
	h.calls = append(h.calls, call+" "+h.names[name])
}

func (h *testHub) Begin()                    { h.calls = append(h.calls, "begin") }
func (h *testHub) Announce()                 { h.calls = append(h.calls, "announce") }
func (h *testHub) Settle()                   { h.calls = append(h.calls, "settle") }
func (h *testHub) Mark(name hub.MarkerName)  { h.record("mark", name) }
func (h *testHub) Miss(name hub.MarkerName)  { h.record("miss", name) }
func (h *testHub) Doubt(name hub.MarkerName) { h.record("doubt", name) }

// since returns the calls since it was called last.
func (h *testHub) since() string {
	calls := strings.Join(h.calls, ", ")
	h.calls = nil
	return calls
}

// publish publishes a message, which all hubs receive but some.
func (w *world) publish(except ...*testHub) {
	w.messages++
	for _, h := range w.hubs {
		if !slices.Contains(except, h) {
			h.Count("user-1", fmt.Sprint("message ", w.messages))
		}
	}
}

// write makes h publish a marker, which all hubs receive but some. It is sent as JSON.
func (w *world) write(h *testHub, except ...*testHub) Marker {
	w.t.Helper()
	mk, ok := h.Write(w.now)
	if !ok {
		w.t.Fatalf("%s writes no marker", h.name)
	}
	w.send(mk, except...)
	return mk
}

func (w *world) send(mk Marker, except ...*testHub) {
	w.t.Helper()
	if _, known := w.names[mk.Name]; !known {
		w.names[mk.Name] = fmt.Sprint("m", len(w.names)+1)
	}
	for _, h := range w.hubs {
		if slices.Contains(except, h) {
			continue
		}
		received, err := ParseMarker(string(AppendMarker(nil, mk)))
		if err != nil {
			w.t.Fatal(err)
		}
		h.reports = append(h.reports, h.Receive(received, w.now))
	}
}

// expect compares the calls of hubs since the last time, given as "a: mark m1, miss m2".
func (w *world) expect(want ...string) {
	w.t.Helper()
	for _, h := range w.hubs {
		calls := h.since()
		for _, line := range want {
			if name, words, _ := strings.Cut(line, ": "); name == h.name && words != calls {
				w.t.Errorf("%s: %s, want %s", name, calls, words)
			}
		}
	}
}

// A hub that counted fewer messages than another between two markers, or as many with another checksum, has missed
// some. It announces this at the next marker, once, also if several hubs received more.
func TestR10FewerOrOtherSumIsMissed(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(w *world, a, b *testHub){
		"fewer":     func(w *world, a, b *testHub) { w.publish(b) },
		"other sum": func(w *world, a, b *testHub) { w.publish(a); w.publish(b) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, b, c := w.start("a"), w.start("b"), w.start("c")
			w.publish()
			w.write(a) // m1
			w.publish()
			lose(w, a, b)
			w.publish()
			w.write(c) // m2
			w.expect()
			w.write(c) // m3 lists m1 and m2
			w.expect("b: mark m3, miss m1", "c: mark m3")
			_ = a
		})
	}
}
