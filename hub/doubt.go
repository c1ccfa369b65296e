package hub

import (
	"math"
	"slices"
)

// A hub that has missed messages has sent ids that count too few of them. A client that moves to another hub with such an id
// would not receive a gap (R12). Since an id does not contain its hub, every hub is in doubt about all ids that this hub can
// have sent: those by a marker before its announcement that point to the last place at which the hub was right, or beyond.
// How far beyond does not matter, because a hub that has also missed markers counts on from an old one.

// doubts are the ids whose place is in doubt. They are guarded by Hub.mu.
type doubts struct {
	all      []doubt // oldest first
	announce bool    // this hub has missed messages, and announces it at the next marker
}

type doubt struct {
	from, to uint64      // messages; to applies to ids that count from the start of the process
	gen      *generation // of the markers; nil: of any
	before   uint32      // ordinal of the announcement; MaxUint32: it has not arrived
	settled  ID          // clients with an id from here on that has a suffix of this hub have received the gap
}

// maxDoubts limits the number of doubts. The two oldest become one, which does not concern ids by newer markers. Most
// markers are dropped earlier, so that only few ids are in doubt without need.
const maxDoubts = 64

// has reports whether a client that comes with an id, whose place is known, must receive the gap missed.
func (d *doubts) has(p place) bool {
	return slices.ContainsFunc(d.all, func(x doubt) bool { return x.has(p) })
}

func (x *doubt) has(p place) bool {
	if p.at.Ms < x.from || p.ours && !p.at.before(x.settled) {
		return false
	}
	if p.marker.ordinal == 0 {
		return p.at.Ms <= x.to
	}
	return p.marker.ordinal < x.before && (x.gen == nil || x.gen == p.marker.gen)
}

// begin is called when a generation begins: its gap includes what is not announced yet, and its ids are right.
func (d *doubts) begin(messages uint64) {
	d.announce = false
	for i := range d.all {
		d.all[i].to = min(d.all[i].to, messages)
	}
}

func (d *doubts) add(x doubt) {
	if d.all = append(d.all, x); len(d.all) > maxDoubts {
		d.all[1] = d.all[0].merge(d.all[1])
		d.all = slices.Delete(d.all, 0, 1)
	}
}

// merge returns a doubt for all ids of two.
func (x doubt) merge(y doubt) doubt {
	gen := x.gen
	if gen != y.gen {
		gen = nil
	}
	return doubt{min(x.from, y.from), max(x.to, y.to), gen, max(x.before, y.before), later(x.settled, y.settled)}
}

// Miss records that this hub has missed messages after a marker. The next Mark announces the gap missed to all clients. Until
// Settle, and for ids from before it later on, a client receives it that comes with an id behind the marker. An unknown marker
// stands for the start of the generation.
func (p *PubSub) Miss(after MarkerName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doubts.announce = true
	p.addDoubt(after, math.MaxUint64, math.MaxUint32)
}

// Settle says that the newest Mark was the marker with which this hub has announced to the others what it has missed:
// ids that count from it, or from later ones, are not in doubt.
func (p *PubSub) Settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.doubts.all {
		if x := &p.doubts.all[i]; x.before == math.MaxUint32 {
			x.to, x.before = min(x.to, p.seq.newest.Ms), p.seq.announcement()
		}
	}
}

// Doubt is Miss for another hub, whose announcement is the next Mark: clients that resumed here since the point receive
// the gap, because they can have come from that hub. After Mark, it would be too late: a client could have a position that
// counts from the announcement, which is not in doubt, before the gap is queued for it.
func (p *PubSub) Doubt(after MarkerName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broadcasts.makeRoom()
	from := p.addDoubt(after, p.seq.newest.Ms, p.seq.markers.newest+1)
	e := &Entry{ID: p.seq.newest, Gap: GapMissed, marker: p.seq.marker}
	p.broadcasts.add(e, scope{allTopics: true, resumed: true, since: from})
}

// addDoubt returns the number of messages before the first one that can be missing. It counts a gap without adding one, so
// that ids from now on have a suffix: a client that comes with one of these has received the gap missed.
func (p *PubSub) addDoubt(after MarkerName, to uint64, before uint32) (from uint64) {
	t := p.seq.markers
	from = t.gen.start
	if m := t.byName[after.String()]; m != nil && m.gen == t.gen {
		from = m.at.Ms
	}
	p.seq.newest.Seq += gapUnit
	p.doubts.add(doubt{from: from, to: to, gen: t.gen, before: before, settled: ID{p.seq.newest.Ms, p.seq.newest.Seq &^ math.MaxUint32}})
	return from
}
