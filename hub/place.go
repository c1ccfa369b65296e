package hub

import (
	"math"
	"strings"
)

// A placeState is what a PubSub knows about the place of an id that a client sent.
type placeState uint8

const (
	placeKnown         placeState = iota // a client can resume from it
	placeDoubtful                        // known, but it may come from a hub that has missed messages (R12)
	placeUnknownMarker                   // the id counts from a marker that this hub does not know
	placeAhead                           // the id counts further than this hub has
	placeInvalid                         // not an id
)

// A place is the position of an id in the sequence of this hub.
type place struct {
	at     ID      // not later than the newest id
	marker *marker // that the id counts from
	ours   bool    // the id has a suffix of this hub
}

// locate returns the place of an id that a client sent, <marker>-<n> with or without a suffix: n messages after the marker. For n
// > 0 the gaps of this hub after that message are still to come, for n = 0 those after the marker. If the id has a suffix of
// this hub, only the gaps after that one (R5). h.mu is held.
func (h *Hub) locate(text string) (p place, state placeState) {
	t := h.seq.markers
	id, suffix, _ := strings.Cut(text, ".")
	name, digits, _ := strings.Cut(id, "-")
	n, ok := parseNumber(digits)
	if !ok || !isName(name) {
		return place{}, placeInvalid
	}
	var gaps uint64
	boot, digits, _ := strings.Cut(suffix, ".")
	if p.ours = boot == t.own.name; p.ours { // other hubs do not have the gap
		if gaps, ok = parseNumber(digits); !ok || gaps > math.MaxUint32 {
			return place{}, placeInvalid
		}
	}
	end := h.seq.newest.Ms
	if name == t.own.name {
		p.marker = t.own
		if n > end {
			return place{}, placeInvalid // this process has not counted so far
		}
	} else if p.marker = t.byName[name]; p.marker == nil {
		return place{}, placeUnknownMarker
	}
	if m := p.marker; m != t.own {
		end = min(end, m.gen.end)
	}
	if n > end-p.marker.at.Ms { // not an addition, because n can be huge (R6)
		return place{}, placeAhead
	}
	if n == 0 {
		gaps = max(gaps, p.marker.at.Seq>>32)
	}
	p.at = ID{Ms: p.marker.at.Ms + n, Seq: gaps<<32 | math.MaxUint32}
	if h.seq.newest.before(p.at) {
		p.at = h.seq.newest
	}
	if h.doubts.has(p) {
		return p, placeDoubtful
	}
	return p, placeKnown
}
