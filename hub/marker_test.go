package hub

import (
	"math/rand/v2"
	"testing"
)

// Each text that a hub gave to a place leads back to that place, also after markers were dropped, and to the same message at a
// hub with other gaps.
func TestR5TextsLeadBackToTheirPlaces(t *testing.T) {
	t.Parallel()
	for range 200 {
		seed := rand.Uint64()
		random := rand.New(rand.NewPCG(seed, 0))
		a, b := NewPubSub(Config{}), NewPubSub(Config{})
		type given struct {
			text       string
			place      ID
			generation int
		}
		var all []given
		generation := 0
		give := func(id ID) {
			all = append(all, given{string(a.AppendID(nil, id)), id, generation})
		}
		a.Begin()
		b.Begin()
		for range 100 {
			switch random.IntN(10) {
			case 0, 1:
				name := NewMarkerName()
				a.Mark(name)
				b.Mark(name)
			case 2:
				a.GapForAll(GapMissed)
			case 3:
				b.GapForAll(GapMissed)
			case 4:
				if random.IntN(5) == 0 {
					a.Begin()
					generation++
				}
			default:
				a.Skip()
				b.Skip()
			}
			give(a.seq.newest)
			message := 1 + random.Uint64N(a.seq.newest.Ms+1)
			if message <= a.seq.newest.Ms {
				give(a.seq.messageID(message))
			}
		}
		if random.IntN(2) == 0 {
			for m := a.seq.markers; m.rows.len() > 1+random.IntN(3); {
				delete(m.byName, m.rows.popFront().name)
			}
		}
		give(all[random.IntN(len(all))].place) // of which the marker may have been dropped
		for _, g := range all {
			p, state := a.locate(g.text)
			if state == placeUnknownMarker {
				continue // dropped
			}
			if state != placeKnown || p.at.Ms != g.place.Ms || p.at.Seq>>32 != g.place.Seq>>32 {
				t.Fatalf("seed %d: %q of %v leads to %v, %v", seed, g.text, g.place, p.at, state)
			}
			if p, state := b.locate(g.text); state == placeKnown && p.at.Ms != g.place.Ms {
				t.Fatalf("seed %d: %q of %v leads to %v at another hub", seed, g.text, g.place, p.at)
			}
		}
		if last := all[len(all)-1]; string(a.AppendID(nil, last.place)) != last.text {
			t.Fatalf("seed %d: two texts for %v", seed, last.place)
		}
		a.Close()
		b.Close()
	}
}

// The first place of a marker counts: a relay may repeat a message.
func TestMarkOfAKnownNameIsIgnored(t *testing.T) {
	t.Parallel()
	h := NewPubSub(Config{})
	defer h.Close()
	first, second := NewMarkerName(), NewMarkerName()
	h.Mark(first)
	h.Skip()
	h.Mark(second)
	h.Skip()
	h.Mark(first)
	if got, want := string(h.AppendID(nil, h.seq.newest)), second.String()+"-1"; got != want {
		t.Errorf("the newest id is %s, want %s", got, want)
	}
	if p, state := h.locate(first.String() + "-1"); state != placeKnown || p.at.Ms != 1 {
		t.Errorf("the message after the first place is at %v, %v", p.at, state)
	}
}
