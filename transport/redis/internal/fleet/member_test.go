package fleet

import (
	"fmt"
	"slices"
	"strings"
	"sync"
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

// A marker counts only if its publisher is subscribed to the same server process, which both know, with the same
// patterns.
func TestR3OtherServerOrPatternsDoNotCount(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run      string
		patterns []string
		ownRun   string
		counts   bool
		want     Hub
	}{
		"same":               {run: "run", patterns: []string{"group-*", "user-*"}, ownRun: "run", counts: true},
		"other server":       {run: "other", patterns: []string{"group-*", "user-*"}, ownRun: "run", want: Hub{OtherServer: true}},
		"other patterns":     {run: "run", patterns: []string{"user-*"}, ownRun: "run", want: Hub{OtherPatterns: true}},
		"unknown server":     {patterns: []string{"group-*", "user-*"}, ownRun: "run", want: Hub{OtherServer: true}},
		"own server unknown": {run: "run", patterns: []string{"group-*", "user-*"}, want: Hub{OtherServer: true}},
		"both unknown":       {patterns: []string{"group-*", "user-*"}, want: Hub{OtherServer: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, b := w.start("a"), w.start("b")
			a.subscribe("run", "user-*")
			b.subscribe(c.ownRun, "group-*", "user-*")
			w.expect()
			mk, _ := a.Write(0)
			mk.RunID, mk.Patterns = c.run, c.patterns
			w.send(mk, a)
			if c.counts {
				w.expect("b: mark m1")
			} else {
				w.expect("b: ")
			}
			if own, any := b.Marked(); own || any != c.counts {
				t.Errorf("Marked() = %v, %v", own, any)
			}
			if got := b.Hubs(0)[0]; got.OtherServer != c.want.OtherServer || got.OtherPatterns != c.want.OtherPatterns {
				t.Errorf("b knows %+v", got)
			}
			if _, ok := b.Write(0); ok != (c.ownRun != "") {
				t.Errorf("Write() = %v", ok)
			}
		})
	}
}

// A marker lists every marker that its publisher received within 35 s in its generation, with the number and the sum of
// the messages since the generation began.
func TestR9MarkerListsWhatWasReceived(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	old := w.write(a)
	w.now += time.Second
	w.publish()
	first := w.write(a)
	w.publish()
	w.publish()
	w.now += 10 * time.Second
	second := w.write(b)
	w.now += listAge - 10*time.Second
	mk := w.write(b)
	one, two := Point{Name: first.Name, Count: 1, Sum: a.sumOf(1)}, Point{Name: second.Name, Count: 3, Sum: a.sumOf(3)}
	if want := []Point{one, two}; !slices.Equal(mk.Points, want) {
		t.Errorf("listed %+v, want %+v", mk.Points, want)
	}
	if slices.ContainsFunc(mk.Points, func(p Point) bool { return p.Name == old.Name }) {
		t.Error("a marker that is older than 35 s is listed")
	}
	b.subscribe("run", "user-*")
	third := w.write(a)
	w.publish()
	if got := w.write(b).Points; !slices.Equal(got, []Point{{Name: third.Name}}) {
		t.Errorf("listed %+v in a new generation", got)
	}
	if a.since(); slices.ContainsFunc(a.reports, func(r Report) bool { return r.Mismatch != nil }) {
		t.Error("generations were compared with each other")
	}
}

// sumOf returns the sum of the first n messages.
func (w *world) sumOf(n int) (total uint32) {
	for i := range n {
		total += sum("user-1", fmt.Sprint("message ", i+1))
	}
	return total
}

// A marker lists the newest points only as far as other hubs accept its size.
func TestListIsBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	for range maxPoints + 10 {
		w.publish()
		mk, _ := b.Write(0)
		mk.Points = nil
		a.Receive(mk, w.now)
	}
	mk, _ := a.Write(w.now)
	if n, bytes := len(mk.Points), len(AppendMarker(nil, mk)); n != maxList || bytes > 60<<10 {
		t.Errorf("%d points in %d bytes", n, bytes)
	}
	if last := mk.Points[maxList-1].Count; last != uint64(w.messages) {
		t.Errorf("the last one has count %d", last)
	}
	if n := len(a.points.rows); n != maxPoints || len(a.points.byName) != maxPoints {
		t.Errorf("%d points and %d names are kept", n, len(a.points.byName))
	}
}

// A hub that counted fewer messages than another between two markers, or as many with another checksum, has missed
// some; one that counted more has not.
func TestR10FewerOrOtherSumIsMissed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lose    func(w *world, a, b *testHub)
		a, b    string
		missing uint64
	}{
		"nothing":   {func(w *world, a, b *testHub) {}, "mark m2, mark m3", "mark m2, mark m3", 0},
		"fewer":     {func(w *world, a, b *testHub) { w.publish(b); w.publish(b) }, "mark m2, mark m3", "mark m2, mark m3, miss m1", 2},
		"more":      {func(w *world, a, b *testHub) { w.publish(a) }, "mark m2, mark m3", "mark m2, mark m3", 0},
		"other sum": {func(w *world, a, b *testHub) { w.publish(a); w.publish(b) }, "mark m2, mark m3", "mark m2, mark m3, miss m1", 0},
		"markers too": {func(w *world, a, b *testHub) { // the whole end of a segment
			w.publish(b)
			w.write(a, b)
			w.publish(b)
		}, "mark m2, mark m3, mark m4", "mark m3, mark m4, miss m1", 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, b := w.start("a"), w.start("b")
			w.publish(b) // before the first common marker: b may not have been subscribed
			w.write(a)
			w.publish()
			w.expect()
			c.lose(w, a, b)
			w.publish()
			w.write(a)
			w.write(a)
			w.expect("a: "+c.a, "b: "+c.b)
			missed := strings.Contains(c.b, "miss")
			last := b.reports[len(b.reports)-1].Mismatch
			if missed && (last == nil || *last != Mismatch{Other: "a", Missing: c.missing}) || !missed && last != nil {
				t.Errorf("reported %+v", last)
			}
			if got := b.Mismatches(); got != 1 && missed || got != 0 && !missed {
				t.Errorf("%d mismatches", got)
			}
		})
	}
}

// Counts of different generations are not compared, neither those of the other hub nor one's own.
func TestR10ComparesPerGeneration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	w.write(a)
	w.write(a) // both know the first point, with count 0
	for range 10 {
		w.publish()
	}
	b.subscribe("run", "user-*")
	w.publish()
	w.write(a)
	w.write(a) // b counted 1 and a 11
	if n := b.Mismatches(); n != 0 {
		t.Errorf("%d mismatches after an own generation", n)
	}
	mk := w.write(a)
	from, _, _ := strings.Cut(mk.From, ".")
	mk.Name, mk.From, mk.Points = hub.NewMarkerName(), from+".2", []Point{{Name: mk.Name, Count: 1000}}
	w.send(mk, a)
	if n := b.Mismatches(); n != 0 {
		t.Errorf("%d mismatches after a generation of the other hub", n)
	}
	w.publish(b)
	w.write(a)
	w.write(a)
	if n := b.Mismatches(); n != 1 {
		t.Errorf("%d mismatches after a loss in this generation", n)
	}
}

// A hub that has missed messages says in its next marker after which one, repeats it until that marker arrives, and
// announces the gap once: at the next marker of any hub. It compares nothing that lies before.
func TestR11AnnouncedOnceAtTheNextMarker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.start("a"), w.start("b"), w.start("c")
	w.write(a)
	w.publish()
	w.write(c)
	w.publish(b)
	w.write(a)
	w.expect()
	w.write(a)
	w.expect("a: mark m4", "b: mark m4, miss m2")
	w.write(c) // c also received more, but this is announced here
	w.expect("b: mark m5", "c: mark m5")
	lost := w.write(b, b) // its own link loses it
	w.expect("a: doubt m2, mark m6", "c: doubt m2, mark m6")
	again := w.write(b)
	w.expect("b: mark m7, settle")
	for _, mk := range []Marker{lost, again} {
		if w.names[mk.Missed] != "m2" {
			t.Errorf("%s contains missed %q", w.names[mk.Name], w.names[mk.Missed])
		}
	}
	if mk := w.write(b); mk.Missed != (hub.MarkerName{}) {
		t.Error("announced again after it had arrived")
	}
	w.publish()
	for _, h := range w.hubs {
		w.write(h)
	}
	w.expect("b: mark m8, mark m9, mark m10, mark m11")
	w.publish(b) // what comes later is found as before
	w.write(a)
	w.write(a)
	w.expect("b: mark m12, mark m13, miss m11")
	if n := b.Mismatches(); n != 2 {
		t.Errorf("%d mismatches", n)
	}
}

// Messages that are missed after an announcement was written, and before it arrives, need another one.
func TestR11SecondLossBeforeTheAnnouncementArrives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	w.write(a)
	w.publish(b)
	w.write(a)
	w.write(a)
	first, _ := b.Write(w.now)
	w.write(a)
	w.expect("b: begin, mark m1, mark m2, mark m3, miss m1, mark m4")
	w.publish(b)
	w.write(a)
	w.write(a)
	w.expect("b: mark m5, mark m6, miss m4")
	w.send(first)
	w.expect("b: mark m7")
	if mk := w.write(b); w.names[mk.Missed] != "m1" {
		t.Errorf("the second announcement is after %q, want the earlier point m1", w.names[mk.Missed])
	}
	w.expect("b: mark m8, settle")
}

// A new generation announces a gap itself, but the other hubs must still receive the announcement. If the server is
// another one, they know no marker of the old one.
func TestR11NewGeneration(t *testing.T) {
	t.Parallel()
	for run, want := range map[string]string{"run": "begin, mark m4, settle", "other": "begin, settle"} {
		w := newWorld(t)
		a, b := w.start("a"), w.start("b")
		w.write(a)
		w.publish(b)
		w.write(a)
		w.write(a)
		w.expect("b: begin, mark m1, mark m2, mark m3, miss m1")
		b.subscribe(run, "user-*")
		mk, _ := b.Write(w.now)
		if missed := w.names[mk.Missed]; missed != "m1" && run == "run" || missed != "" && run != "run" {
			t.Errorf("on server %s, a marker contains missed %q", run, missed)
		}
		if run == "run" {
			w.send(mk)
		}
		w.expect("b: " + want)
	}
}

// A hub honors each announcement of another one, and its own one only when it arrives.
func TestR12AnnouncementsOfOthersAreHonored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b, c := w.start("a"), w.start("b"), w.start("c")
	w.write(a)
	w.expect()
	for _, from := range []*testHub{b, c, b} {
		mk, _ := from.Write(w.now)
		mk.Missed = a.points.rows[0].Name
		w.send(mk)
	}
	w.expect("a: doubt m1, mark m2, doubt m1, mark m3, doubt m1, mark m4", "b: mark m2, doubt m1, mark m3, mark m4")
}

// A hub that is not allowed to publish uses the markers of the others. It does not wait forever for its announcement.
func TestR22MuteHubUsesMarkersOfOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, mute := w.start("a"), w.start("mute")
	w.write(a)
	if own, any := mute.Marked(); own || !any {
		t.Errorf("Marked() = %v, %v", own, any)
	}
	w.publish(mute)
	w.write(a)
	w.write(a)
	w.expect("mute: begin, mark m1, mark m2, mark m3, miss m1")
	w.now += settleWithin
	w.write(a)
	w.expect("mute: mark m4")
	w.now++
	w.write(a)
	w.write(a)
	w.expect("mute: mark m5, settle, mark m6")
	if self := mute.Hubs(w.now)[1]; !self.Self || self.Age >= 0 {
		t.Errorf("mute knows itself as %+v", self)
	}
}

// A name that is received again keeps its first place.
func TestDuplicateMarkerIsIgnored(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	mk := w.write(a)
	w.publish()
	w.expect()
	w.send(mk)
	w.expect("a: ", "b: ")
	if got := w.write(b).Points; len(got) != 1 || got[0].Count != 0 {
		t.Errorf("listed %+v", got)
	}
}

// Before the control channel is confirmed, a hub may not receive every marker.
func TestMarkersCountFromTheControlChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	b.Member.Begin("run", []string{"user-*"})
	if _, ok := b.Write(0); ok {
		t.Error("wrote a marker before the control channel was confirmed")
	}
	w.publish()
	w.expect()
	w.write(a)
	w.expect("b: ")
	b.Subscribed()
	w.write(a)
	w.expect("b: mark m2")
	if got := w.write(b).Points; len(got) != 1 || got[0].Count != 1 {
		t.Errorf("listed %+v, want the message before the confirmation to be counted", got)
	}
}

// Hubs are listed for 30 s after their newest marker, sorted by name, with this one.
func TestHubs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	b, a, again := w.start("b"), w.start("a"), w.start("a")
	w.write(a)
	w.now += 10 * time.Second
	w.write(b)
	w.write(again)
	w.now += 20 * time.Second
	want := []Hub{
		{Name: "a", Version: "1.0", Streams: 3, Users: 2, Age: 30 * time.Second},
		{Name: "a", Version: "1.0", Streams: 3, Users: 2, Age: 20 * time.Second},
		{Name: "b", Version: "1.0", Streams: 3, Users: 2, Age: 20 * time.Second, Self: true},
	}
	got := b.Hubs(w.now)
	if len(got) == 3 && got[0].Age < got[1].Age {
		got[0], got[1] = got[1], got[0] // the order of equal names is random
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	w.write(b)
	for _, h := range b.Hubs(w.now - 1) { // a marker is received between the reading of the clock and the call
		if h.Age < 0 {
			t.Errorf("without a marker: %+v", h)
		}
	}
	w.now++
	if got := b.Hubs(w.now); len(got) != 2 || !got[1].Self || got[0].Age != 20*time.Second+1 {
		t.Errorf("after 30 s: %+v", got)
	}
	b.subscribe("run", "user-*")
	if got := b.Hubs(w.now); got[1].Age >= 0 {
		t.Errorf("before the first marker of a generation: %+v", got)
	}
}

// A hub with another version or other patterns is reported once. A marker in a version that this hub does not know
// counts for nothing else.
func TestDifferentHubIsReportedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	w.expect()
	reported := func() *Hub {
		w.write(b)
		return a.reports[len(a.reports)-1].Differs
	}
	if h := reported(); h != nil {
		t.Errorf("an equal hub is reported: %+v", h)
	}
	b.subscribe("run", "user-*", "x-*")
	if h := reported(); h == nil || h.Name != "b" || !h.OtherPatterns {
		t.Errorf("other patterns are reported as %+v", h)
	}
	if h := reported(); h != nil {
		t.Errorf("reported again: %+v", h)
	}
	w.expect()
	payload := `{"op":"marker","v":2,"id":{"x":1},"points":[1,2],"from":"zzz.1","hub":{"name":"new","version":"2.0"}}`
	mk, err := ParseMarker(payload)
	if err != nil {
		t.Fatal(err)
	}
	if h := a.Receive(mk, w.now).Differs; h == nil || h.Name != "new" || h.Version != "2.0" {
		t.Errorf("another version is reported as %+v", h)
	}
	w.expect("a: ")
	for _, payload := range []string{
		`{"op":"marker","v":2,"from":"yyy.1","hub":null}`, `{"op":"marker","v":2,"from":"xxx.1"}`, `{"op":"marker","v":2,"from":"vvv.1","hub":{"name":"odd"}}`,
	} {
		mk, err := ParseMarker(payload)
		if err != nil {
			t.Fatal(err)
		}
		if h := a.Receive(mk, w.now).Differs; h != nil {
			t.Errorf("%s is reported as another version", payload)
		}
	}
	if n := len(a.Hubs(w.now)); n != 6 {
		t.Errorf("a knows %d hubs", n)
	}
}

// Forged markers do not make a hub remember an unlimited number of publishers. Those that it knows stay.
func TestPeersAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	w.write(b)
	forge := func() {
		for i := range 2 * maxPeers {
			a.Receive(Marker{From: fmt.Sprintf("forged%d.%d", w.now, i)}, w.now)
			a.Receive(Marker{From: fmt.Sprintf("forged%d-%d.1", w.now, i)}, w.now)
		}
	}
	forge()
	if n := len(a.peers); n != maxPeers {
		t.Errorf("%d peers", n)
	}
	w.write(b)
	w.publish(a)
	w.write(b)
	w.write(b)
	if a.Mismatches() != 1 {
		t.Error("a hub that was known before is not compared any more")
	}
	w.now += peerAge + 1
	forge()
	if _, known := a.peers[b.boot]; known || len(a.peers) != maxPeers {
		t.Errorf("%d peers after the old ones have expired, %v", len(a.peers), known)
	}
}

// Forged markers do not hide what a hub says that is not remembered because of them. What it has received is compared
// within each of its lists.
func TestForgedMarkersHideNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	for i := range maxPeers {
		a.Receive(Marker{From: fmt.Sprintf("forged%d.1", i)}, w.now)
	}
	w.write(b)
	mk, _ := b.Write(w.now)
	mk.Missed, mk.Hub.Version = mk.Points[0].Name, "2.0"
	w.send(mk, b)
	w.expect("a: begin, mark m1, doubt m1, mark m2")
	if a.reports[len(a.reports)-1].Differs != nil {
		t.Error("a hub that is not remembered is reported at each marker")
	}
	w.publish(a)
	w.write(b)
	w.write(b)
	w.expect("a: mark m3, mark m4, miss m1") // b has not received m2
	if len(a.peers) != maxPeers {
		t.Errorf("%d peers", len(a.peers))
	}
}

// A Member can be asked while it receives.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.start("a"), w.start("b")
	var group sync.WaitGroup
	for range 2 {
		group.Go(func() {
			for range 200 {
				a.Write(0)
				a.Hubs(0)
				a.Marked()
				a.Mismatches()
			}
		})
	}
	for i := range 200 {
		w.publish()
		w.write(b)
		if i%50 == 0 {
			a.subscribe("run", "user-*")
		}
	}
	group.Wait()
}

// Counting is part of the path of every message.
func TestCountDoesNotAllocate(t *testing.T) {
	w := newWorld(t)
	a := w.start("a")
	payload := strings.Repeat("x", 200)
	if n := testing.AllocsPerRun(100, func() { a.Count("user-10000000:activity", payload) }); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}
