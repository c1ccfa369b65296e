package hub_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"usercast/hub"
)

// A page is a client that remembers its id, as a browser does.
type page struct {
	t  *testing.T
	id string
	*listener
}

func encodeWithID(dst []byte, e hub.Entry, named bool) []byte {
	return e.AppendID(append(encode(dst, e, named), ' '))
}

// markerName returns the name markerxxxxxxx.
func markerName(letter string) hub.MarkerName {
	name, ok := hub.ParseMarkerName("marker" + strings.Repeat(letter, 7))
	if !ok {
		panic(letter)
	}
	return name
}

// newMissHub returns a hub in its first generation, after a message and the marker a.
func newMissHub(t *testing.T) *hub.PubSub {
	t.Helper()
	h := newPubSub(t, hub.Config{Encode: encodeWithID, HistoryPerUser: 10000, HistoryBytes: 1 << 20, HistoryAge: time.Hour, MarkerAge: time.Hour})
	h.Begin()
	h.Publish(hub.User("42"), "", "before")
	h.Mark(markerName("a"))
	return h
}

// open opens a stream with an id, "" for a new one, and reads what it missed.
func (p *page) open(h *hub.PubSub) []string {
	p.t.Helper()
	p.listener = register(p.t, h, hub.Options{User: "42", Resume: p.id})
	if p.id == "" {
		p.id = string(h.AppendID(nil, p.Opening()))
	}
	return p.read()
}

// read reads all frames, and returns them without their ids.
func (p *page) read() (texts []string) {
	frames, _ := p.drain()
	for _, f := range frames {
		cut := strings.LastIndex(f, " ")
		texts, p.id = append(texts, f[:cut]), f[cut+1:]
	}
	return texts
}

func (p *page) wants(got []string, want ...string) {
	p.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Errorf("received %q, want %q", got, want)
	}
}

// A hub that has missed messages announces this in front of the next marker. Ids that count from that marker are right,
// at every hub.
func TestR11MissedIsAnnouncedBeforeTheNextMarker(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	p := &page{t: t}
	p.open(h)
	h.Publish(hub.User("42"), "", "one")
	p.wants(p.read(), "one")
	h.Miss(markerName("a"))
	h.Publish(hub.User("42"), "", "two")
	p.wants(p.read(), "two")
	h.Mark(markerName("b"))
	p.wants(p.read(), "gap missed")
	if p.id != "markerbbbbbbb-0."+h.Boot()+".1" {
		t.Errorf("the gap has the id %s", p.id)
	}
	h.Mark(markerName("c"))
	p.wants(p.read()) // once
	h.Settle()
	other := &page{t: t, id: "markerccccccc-0"}
	other.wants(other.open(h))
	told := &page{t: t, id: p.id}
	told.wants(told.open(h))
	h.Publish(hub.User("42"), "", "three")
	p.wants(p.read(), "three")
	other.wants(other.read(), "three")
}

// A generation that begins before the next marker has its own gap, which is enough.
func TestR11GenerationIsAnnouncementEnough(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	p := &page{t: t}
	p.open(h)
	h.Miss(markerName("a"))
	h.Begin()
	h.Publish(hub.User("42"), "", "one")
	p.wants(p.read(), "gap redis-reconnect", "one")
	again := &page{t: t, id: h.Boot() + "-2"} // its id counts from no marker, but it is of this generation
	again.wants(again.open(h))
	before := &page{t: t, id: h.Boot() + "-1"}
	before.wants(before.open(h), "gap missed")
	h.Mark(markerName("b"))
	p.wants(p.read())
	h.Settle()
	again.wants(again.open(h))
	p.wants(p.read())
}

// At another server, the announcement cannot arrive. All ids of the generation that missed messages stay in doubt.
func TestR12NewServerSettlesTheDoubt(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	h.Publish(hub.User("42"), "", "one")
	h.Miss(markerName("a"))
	h.Begin()
	h.Settle()
	p := &page{t: t, id: "markeraaaaaaa-1"}
	p.wants(p.open(h), "gap missed")
	h.Mark(markerName("b"))
	p = &page{t: t, id: "markerbbbbbbb-0"}
	p.wants(p.open(h))
}

// Until the announcement of a hub arrives, every id of a client that comes to it is in doubt. Afterwards, all ids from
// before it.
func TestR12OwnDoubtEndsWithTheAnnouncement(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	h.Publish(hub.User("42"), "", "one")
	h.Miss(markerName("a"))
	h.Mark(markerName("b"))
	come := func(id string, want ...string) {
		t.Helper()
		p := &page{t: t, id: id}
		p.wants(p.open(h), want...)
	}
	come("markeraaaaaaa-1", "gap missed")
	come("markerbbbbbbb-0", "gap missed") // it can come from this hub by way of another one
	come(h.Boot()+"-2", "gap missed")
	come(h.Boot()+"-0", "gap redis-reconnect", "before", "one", "gap missed") // before the place to which this hub was right
	h.Mark(markerName("c"))
	h.Settle()
	come("markeraaaaaaa-1", "gap missed")
	come("markerbbbbbbb-0", "gap missed")
	come("markerccccccc-0")
	h.Publish(hub.User("42"), "", "two")
	come("markerccccccc-0", "two")
	come(h.Boot() + "-3")
}

// A page that left the other hub before that hub found what it had missed receives the gap at its current hub, and so
// does one that comes later with such an id.
func TestR12PageThatLeftEarlierIsTold(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	early, fresh := &page{t: t, id: "markeraaaaaaa-0"}, &page{t: t}
	early.open(h) // before the marker that the announcement names
	fresh.open(h)
	h.Publish(hub.User("42"), "", "one")
	h.Mark(markerName("b"))
	resumed := &page{t: t, id: "markeraaaaaaa-1"}
	resumed.open(h)
	stayed := &page{t: t}
	stayed.open(h)
	h.Publish(hub.User("42"), "", "two")
	for _, p := range []*page{early, fresh, resumed, stayed} {
		p.read()
	}
	h.Doubt(markerName("b"))
	h.Mark(markerName("c"))
	resumed.wants(resumed.read(), "gap missed")
	for _, p := range []*page{early, fresh, stayed} {
		p.wants(p.read())
	}
	come := func(id string, want ...string) {
		t.Helper()
		p := &page{t: t, id: id}
		p.wants(p.open(h), want...)
	}
	come("markeraaaaaaa-0", "one", "two") // before the place to which the other hub was right
	come("markeraaaaaaa-1", "gap missed")
	come("markerbbbbbbb-0", "gap missed")
	come("markerbbbbbbb-1", "gap missed")
	come(h.Boot()+"-1", "one", "two")
	come(h.Boot()+"-2", "gap missed")
	come("markerccccccc-0")
	come(resumed.id) // has been told: its id has a suffix of this hub
	h.Publish(hub.User("42"), "", "three")
	come(resumed.id, "three")
	resumed.wants(resumed.read(), "three")
}

// The gap missed never has the id of the client, which would receive it again and again.
func TestR12GapHasAnIDThatIsNotInDoubt(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	h.Miss(markerName("a"))
	h.Mark(markerName("b"))
	h.Publish(hub.User("42"), "", "one")
	p := &page{t: t, id: "markerbbbbbbb-1"}
	p.wants(p.open(h), "gap missed")
	again := &page{t: t, id: p.id}
	again.wants(again.open(h))
	third := &page{t: t, id: "markerbbbbbbb-1"}
	third.wants(third.open(h), "gap missed")
	if third.id != p.id {
		t.Errorf("the position has become %s after %s, without need", third.id, p.id)
	}
}

// A hub that has also lost markers counts on from an old one: its ids are in doubt however far they point.
func TestR12IDsFarBeyond(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	h.Doubt(markerName("a"))
	h.Mark(markerName("b"))
	for range 100 {
		h.Publish(hub.User("42"), "", "more")
	}
	p := &page{t: t, id: "markeraaaaaaa-100"}
	p.wants(p.open(h), "gap missed")
	p = &page{t: t, id: "markerbbbbbbb-100"}
	p.wants(p.open(h))
}

// An announcement after a marker that this hub does not know, or knows from another generation, concerns all ids of the
// generation. Ids of older generations end with it: they are followed by its gap anyway.
func TestR12UnknownPointStandsForTheGeneration(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"a", "z"} {
		h := newMissHub(t)
		resumed, fresh := &page{t: t, id: "markeraaaaaaa-0"}, &page{t: t}
		resumed.open(h)
		h.Publish(hub.User("42"), "", "one")
		h.Begin()
		fresh.open(h)
		h.Mark(markerName("b"))
		h.Publish(hub.User("42"), "", "two")
		h.Doubt(markerName(point))
		h.Mark(markerName("c"))
		p := &page{t: t, id: "markerbbbbbbb-0"}
		p.wants(p.open(h), "gap missed")
		p = &page{t: t, id: "markeraaaaaaa-1"}
		p.wants(p.open(h), "gap redis-reconnect", "two")
		resumed.wants(resumed.read(), "one", "gap redis-reconnect", "two")
		fresh.wants(fresh.read(), "two")
	}
}

// In the first generation, a point that is not known does not concern streams that began here either.
func TestR12NewStreamIsNotTold(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	p := &page{t: t}
	p.open(h)
	h.Doubt(markerName("z"))
	h.Mark(markerName("b"))
	p.wants(p.read())
}

// An id with the suffix of an older gap is in doubt like others.
func TestR12SuffixOfAnOlderGap(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	p := &page{t: t}
	p.open(h)
	h.GapForAll(hub.GapRedisReconnect)
	p.wants(p.read(), "gap redis-reconnect")
	if !strings.HasPrefix(p.id, "markeraaaaaaa-0.") {
		t.Fatalf("the id %s has no suffix", p.id)
	}
	h.Doubt(markerName("a"))
	h.Mark(markerName("b"))
	p.wants(p.read())
	again := &page{t: t, id: p.id}
	again.wants(again.open(h), "gap missed")
}

// The announcement of this hub does not prolong its doubt about another one.
func TestR12EachDoubtEndsWithItsAnnouncement(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	h.Doubt(markerName("a"))
	h.Mark(markerName("b"))
	h.Publish(hub.User("42"), "", "one")
	h.Mark(markerName("c"))
	h.Miss(markerName("c"))
	h.Mark(markerName("d"))
	h.Settle()
	for id, want := range map[string][]string{
		"markeraaaaaaa-0": {"gap missed"}, "markerbbbbbbb-0": {"one", "gap missed"}, "markerccccccc-0": {"gap missed"}, "markerddddddd-0": nil,
	} {
		p := &page{t: t, id: id}
		p.wants(p.open(h), want...)
	}
}

// A client for which another gap is still pending receives both, and does not receive them again when it reconnects.
func TestR12PendingSpreadGap(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	h.Begin()
	h.Mark(markerName("b"))
	p, before := &page{t: t, id: "markerbbbbbbb-0"}, &page{t: t}
	before.open(h)
	p.wants(p.open(h))
	h.GapForAll(hub.GapRedisReconnect) // is spread
	h.Doubt(markerName("b"))
	h.Mark(markerName("c"))
	h.Mark(markerName("d"))
	p.wants(p.read(), "gap redis-reconnect", "gap missed")
	before.wants(before.read(), "gap redis-reconnect")
	if p.id != "markerddddddd-0" {
		t.Errorf("the last gap has the id %s, not that of its moment", p.id)
	}
	again := &page{t: t, id: p.id}
	again.wants(again.open(h))
}

// A client that receives nothing else is woken for the gap.
func TestR12IdleClientIsWoken(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	woken := make(chan struct{}, 1)
	l := &listener{onWake: func() { woken <- struct{}{} }}
	c, err := h.Register(hub.Options{User: "42", Resume: "markeraaaaaaa-0", Consumer: l})
	if err != nil {
		t.Fatal(err)
	}
	l.Client = c
	l.Take(nil) // sleeps
	h.Doubt(markerName("a"))
	<-woken
	p := &page{t: t, listener: l}
	p.wants(p.read(), "gap missed")
}

// With very many clients, the gap is distributed in parts. A client does not have a position, and does not receive a message,
// before it has the gap.
func TestR12GapInPartsComesFirst(t *testing.T) {
	t.Parallel()
	h := newPubSub(t, hub.Config{Encode: encodeWithID, FanOut: 1, HistoryPerUser: 100, HistoryBytes: 1 << 20, HistoryAge: time.Hour, MarkerAge: time.Hour})
	h.AwaitPlaces(func() {})
	h.Begin()
	h.Mark(markerName("a"))
	var resumed, fresh, waiting []*page
	for range 400 {
		for list, id := range map[*[]*page]string{&resumed: "markeraaaaaaa-0", &fresh: "", &waiting: "markeraaaaaaa-1"} {
			p := &page{t: t, id: id}
			p.wants(p.open(h))
			*list = append(*list, p)
		}
	}
	h.Doubt(markerName("a"))
	pending := hub.PendingBroadcasts(h.Hub)
	h.Received(h.Waiting()) // clients that resume now receive a gap of their own
	h.Mark(markerName("b"))
	for i, p := range resumed {
		if id, ok := p.Position(); ok {
			t.Fatalf("client %d has the position %s before the gap", i, text(h.Hub, id))
		}
		if i%2 == 0 {
			p.wants(p.read(), "gap missed")
		}
	}
	h.Publish(hub.User("42"), "", "one")
	for i, p := range resumed {
		p.wants(p.read(), [][]string{{"one"}, {"gap missed", "one"}}[i%2]...)
	}
	for _, p := range fresh {
		p.wants(p.read(), "one")
	}
	hub.AwaitBroadcasts(h.Hub)
	for _, p := range waiting {
		p.wants(p.read(), "gap unknown-id", "one")
	}
	if pending == 0 {
		t.Error("the gap was not distributed in parts")
	}
}

// A client that waits for its place when the announcement arrives receives the gap once its place is known.
func TestR12ClientThatWaitsIsTold(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	h.AwaitPlaces(func() {})
	p := &page{t: t, id: "markeraaaaaaa-1"}
	p.wants(p.open(h))
	h.Doubt(markerName("a"))
	h.Mark(markerName("b"))
	p.wants(p.read())
	h.Publish(hub.User("42"), "", "one")
	h.Received(h.Waiting())
	p.wants(p.read(), "gap missed")
	h.Publish(hub.User("42"), "", "two")
	p.wants(p.read(), "two")
}

// Only the newest doubts are kept apart: older ones become one that concerns all of their ids, and no other ones.
func TestDoubtsAreBounded(t *testing.T) {
	t.Parallel()
	h := newMissHub(t)
	names := []hub.MarkerName{markerName("a")}
	for range 1000 {
		h.Publish(hub.User("42"), "", "more")
		names = append(names, hub.NewMarkerName())
		h.Doubt(names[len(names)-2])
		h.Mark(names[len(names)-1])
	}
	if n := hub.Doubts(h); n > 64 {
		t.Errorf("%d doubts", n)
	}
	for i := range len(names) - 1 {
		p := &page{t: t, id: names[i].String() + "-0"}
		p.wants(p.open(h), "gap missed")
		p.End(hub.ReasonClosed)
	}
	p := &page{t: t, id: names[1000].String() + "-0"}
	p.wants(p.open(h))
}
