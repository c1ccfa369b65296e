package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"usercast/hub"
)

// A fleet is a world in which each Member advances a real hub.
type fleet struct {
	*world
	places map[*testHub]*hub.PubSub
}

func newFleet(t *testing.T, names ...string) (f *fleet, hubs []*testHub) {
	f = &fleet{world: newWorld(t), places: map[*testHub]*hub.PubSub{}}
	for _, name := range names {
		h := &testHub{world: f.world, name: name}
		p := hub.NewPubSub(hub.Config{GapSpread: hub.Off, Encode: func(dst []byte, e hub.Entry, _ bool) []byte {
			dst = append(e.AppendID(dst), ' ')
			if e.Gap != 0 {
				return fmt.Append(dst, "gap ", e.Gap)
			}
			return append(dst, e.Payload...)
		}})
		t.Cleanup(p.Close)
		h.Member = NewMember(Config{Places: p, Name: name, Version: "1.0", Load: func() (int, int) { return 0, 0 }})
		h.subscribe("run", "user-*")
		f.places[h] = p
		f.hubs = append(f.hubs, h)
	}
	for range 2 {
		for _, h := range f.hubs {
			f.write(h)
		}
	}
	return f, f.hubs
}

// publish publishes a message to the user 1, which all hubs receive but some.
func (f *fleet) publish(payload string, except ...*testHub) {
	for _, h := range f.hubs {
		lost := false
		for _, x := range except {
			lost = lost || x == h
		}
		if !lost {
			h.Count("user-1", payload)
			f.places[h].Publish(hub.User("1"), "", payload)
		}
	}
}

// A visitor is a page of the user 1, which remembers its id.
type visitor struct {
	f  *fleet
	id string
	*hub.Client
}

func (v *visitor) Wake()      {}
func (v *visitor) Interrupt() {}

// move opens a stream at a hub, instead of the one before, and reads what it missed.
func (v *visitor) move(to *testHub) string {
	v.f.t.Helper()
	if v.Client != nil {
		v.End(hub.ReasonClosed)
		v.Take(nil)
	}
	var err error
	if v.Client, err = v.f.places[to].Register(hub.Options{User: "1", Resume: v.id, Consumer: v}); err != nil {
		v.f.t.Fatal(err)
	}
	if v.id == "" {
		v.id = string(v.f.places[to].AppendID(nil, v.Opening()))
	}
	return v.read()
}

// read returns what the page has received since the last time.
func (v *visitor) read() string {
	var texts []string
	for {
		frames, _ := v.Take(nil)
		if frames == nil {
			return strings.Join(texts, ", ")
		}
		for _, frame := range frames {
			id, text, _ := strings.Cut(string(frame.Wire), " ")
			v.id, texts = id, append(texts, text)
		}
		v.Settle(frames, len(frames))
	}
}

func (v *visitor) expect(got, want string) {
	v.f.t.Helper()
	if got != want {
		v.f.t.Errorf("received %q, want %q", got, want)
	}
}

// A page whose hub has missed a message, and which moves before this is found, receives the gap at each hub that it can have
// reached: by way of others, and back at the hub itself.
func TestR12PageThatMovesBeforeALossIsFound(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"A B": "b", "A B A": "ba", "A B C": "bc", "A B A C": "bac", "A C B A": "cba", "A": "", "A A": "a",
	} {
		for _, when := range []string{"before", "after"} { // the announcement is known
			for _, moved := range []string{"", "moved"} { // between each two moves, a message and a marker
				t.Run(strings.Join([]string{name, when, moved}, "/"), func(t *testing.T) {
					t.Parallel()
					f, hubs := newFleet(t, "a", "b", "c")
					a := hubs[0]
					page, missed := &visitor{f: f}, false
					took := func(texts string) {
						missed = missed || strings.Contains(texts, "gap missed") || strings.Contains(texts, "lost")
					}
					took(page.move(a))
					f.publish("lost", a)
					f.publish("one")
					took(page.read())
					if missed {
						t.Fatal("the page has received the message")
					}
					find := func() {
						f.write(hubs[1])
						f.write(hubs[2])
						f.write(hubs[1])
						if a.Mismatches() != 1 {
							t.Fatalf("%d mismatches", a.Mismatches())
						}
						f.write(a) // announces
						f.write(hubs[2])
					}
					if when == "after" {
						// It leaves before, and arrives afterwards.
						page.End(hub.ReasonClosed)
						page.Take(nil)
						page.Client = nil
						find()
					}
					for _, to := range path {
						took(page.move(hubs[to-'a']))
						if moved != "" {
							f.publish("between")
							took(page.read())
							if when == "before" {
								f.write(hubs[0]) // only a knows less: it does not find out by its own marker
								took(page.read())
							}
						}
					}
					if when == "before" {
						find()
					}
					if page.Client == nil {
						took(page.move(a))
					}
					took(page.read())
					if !missed {
						t.Errorf("the page, with %s, does not know that it has missed a message", page.id)
					}
					// And once is enough.
					f.publish("two")
					page.expect(page.read(), "two")
					for _, to := range []int{1, 0, 2} {
						page.expect(page.move(hubs[to]), "")
					}
				})
			}
		}
	}
}

// A hub that is stopped publishes a marker when it begins to drain, and one right before its exit. The latter lists the
// former, so that what only this hub has received is known.
func TestR13DrainingHubTestifies(t *testing.T) {
	t.Parallel()
	f, hubs := newFleet(t, "a", "b")
	a, b := hubs[0], hubs[1]
	page := &visitor{f: f}
	page.move(a)
	f.publish("lost", a)
	f.write(b) // begins to drain
	if page.read(); a.Mismatches() != 0 {
		t.Fatal("found too early: this test does not need the last marker")
	}
	f.write(b) // exits
	f.hubs = f.hubs[:1]
	f.write(a)
	page.expect(page.read(), "gap missed")
}

// Two losses are two gaps, each of them once, whatever markers the hub loses as well.
func TestR11EachLossIsAnnouncedOnce(t *testing.T) {
	t.Parallel()
	f, hubs := newFleet(t, "a", "b", "c")
	a := hubs[0]
	page := &visitor{f: f}
	page.move(a)
	for range 3 {
		f.publish("lost", a)
		f.write(hubs[1], a)
		f.publish("lost as well", a)
		for range 3 {
			for _, h := range hubs {
				f.now += 3 * time.Second
				f.write(h)
			}
		}
		page.expect(page.read(), "gap missed")
	}
	for _, h := range hubs[1:] {
		if h.Mismatches() != 0 {
			t.Errorf("%s has found %d mismatches", h.name, h.Mismatches())
		}
	}
}

// A hubAtMark is a hub in which a page reads its position as soon as a marker is received.
type hubAtMark struct {
	*hub.PubSub
	after func()
}

func (h *hubAtMark) Mark(name hub.MarkerName) {
	h.PubSub.Mark(name)
	h.after()
}

// A page that must be told what another hub has missed has no id by the announcement before the gap: with such an id, it
// would not receive the gap when it reconnects.
func TestR12GapComesBeforeIDsByTheAnnouncement(t *testing.T) {
	t.Parallel()
	f, hubs := newFleet(t, "a", "b")
	a, b := hubs[0], hubs[1]
	page := &visitor{f: f}
	page.move(b)
	f.publish("lost", b)
	f.publish("one")
	page.read()
	page.move(a)
	a.cfg.Places = &hubAtMark{f.places[a], func() {
		if id, ok := page.Position(); ok {
			page.id = string(f.places[a].AppendID(nil, id))
		}
	}}
	f.write(a)
	f.write(a)
	f.write(b)
	if b.Mismatches() != 1 {
		t.Fatalf("%d mismatches", b.Mismatches())
	}
	if got := page.move(a); !strings.HasSuffix(got, "gap missed") {
		t.Errorf("received %q at %s, want the gap missed", got, page.id)
	}
}
