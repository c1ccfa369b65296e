package hub

import (
	"slices"
	"time"
	"weak"
)

// kept is an entry of the history. It is in the list of its owner, and in the one
// list of all that is kept, oldest first.
type kept struct {
	at             point
	topic, payload string
	gap            Gap
	forAll         bool          // whatever their topics
	since          time.Duration // Hub.born
	owner          *user         // Hub.everybody for what concerns all; nil: only its id counts
	// Frames that were made of it for a replay, plain and named, as long as somebody
	// writes them: thousands who come back at once share them.
	frames       *[2]weak.Pointer[Frame] // nil: there never were any
	older, newer *kept
}

// entryOverhead is about what an entry costs beside its strings, in bytes.
const entryOverhead = 160

func (k *kept) bytes() int64 {
	n := entryOverhead + len(k.topic) + len(k.payload)
	if k.owner != nil {
		n += len(k.owner.name)
	}
	return int64(n)
}

// frame is one that was made of k and that somebody still has; nil: there is none.
func (k *kept) frame(variant int) *Frame {
	if k.frames == nil {
		return nil
	}
	return k.frames[variant].Value()
}

func (k *kept) share(variant int, f *Frame) {
	if k.frames == nil {
		k.frames = new([2]weak.Pointer[Frame])
	}
	k.frames[variant] = weak.Make(f)
}

// isLog reports whether a log brings the entries, with ids of its own.
func (h *Hub) isLog() bool { return h.query != nil }

// keep adds the newest entry to the history. Owner nil: only the id is kept, so
// that it is known.
func (h *Hub) keep(owner *user, at point, e *Entry, forAll bool) {
	if owner != nil && !h.keeps() {
		owner.floor = at
	}
	if !h.keeps() {
		h.floor = at
		return
	}
	k := &kept{at: at, topic: e.Topic, payload: e.Payload, gap: e.Gap, forAll: forAll, since: e.time().Sub(h.born), owner: owner}
	k.older = h.newest
	if h.newest == nil {
		h.oldest = k
	} else {
		h.newest.newer = k
	}
	h.newest = k
	h.keptBytes += k.bytes()
	h.keptEntries++
	if owner != nil {
		owner.kept.pushBack(k)
	}
	if h.isLog() {
		h.ids.pushBack(at)
	} else {
		if owner.kept.len() > h.cfg.HistoryPerUser {
			h.drop(owner.kept.at(0))
		}
		// Two for each that is added: the sweep then has little to do at once.
		for range 2 {
			if h.oldest != nil && k.since-h.oldest.since > h.cfg.HistoryAge {
				h.drop(h.oldest)
			}
		}
	}
	h.trim()
	h.scheduleSweep()
}

// keeps reports whether there is a history at all.
func (h *Hub) keeps() bool {
	return h.cfg.HistoryBytes > 0 && (h.isLog() || h.cfg.HistoryPerUser > 0 && h.cfg.HistoryAge > 0)
}

// trim makes the history fit into its bytes: the oldest entries go first, then
// the users who left first.
func (h *Hub) trim() {
	for h.keptBytes > h.cfg.HistoryBytes && h.oldest != nil {
		h.drop(h.oldest)
	}
	for h.keptBytes > h.cfg.HistoryBytes && h.departures.first != nil {
		h.forget(h.departures.first.user)
	}
}

// drop takes the oldest entry of its owner out of the history.
func (h *Hub) drop(k *kept) {
	if k.older == nil {
		h.oldest = k.newer
	} else {
		k.older.newer = k.newer
	}
	if k.newer == nil {
		h.newest = k.older
	} else {
		k.newer.older = k.older
	}
	k.older, k.newer = nil, nil // one that is still referred to must not hold all the others
	h.keptBytes -= k.bytes()
	h.keptEntries--
	if h.isLog() {
		h.ids.popFront()
		h.floor = k.at
	}
	if u := k.owner; u != nil {
		u.kept.popFront()
		u.floor = k.at
		if h.isLog() {
			h.forgetIfEmpty(u)
		}
	}
}

// The sweep drops what has become too old while nothing else moves. It comes late
// by sweepPart of the age, so that it finds more than one thing to do.
const (
	sweepPart = 64
	minSweep  = 10 * time.Millisecond
	maxSweep  = time.Second
	sweepMost = 256 // entries and users that are dropped before others get h.mu
)

func (h *Hub) scheduleSweep() {
	if h.sweeping || h.isLog() || h.closed {
		return
	}
	due := h.nextSweep()
	if due.IsZero() {
		return
	}
	h.sweeping = true
	wait := time.Until(due) + min(max(h.cfg.HistoryAge/sweepPart, minSweep), maxSweep)
	if h.sweeper == nil {
		h.sweeper = time.AfterFunc(wait, h.sweep)
	} else {
		h.sweeper.Reset(wait)
	}
}

// nextSweep is when the oldest thing is too old; zero: there is none.
func (h *Hub) nextSweep() (due time.Time) {
	if h.oldest != nil {
		due = h.born.Add(h.oldest.since + h.cfg.HistoryAge)
	}
	if d := h.departures.first; d != nil {
		if forget := h.born.Add(d.at + h.cfg.HistoryAge); due.IsZero() || forget.Before(due) {
			due = forget
		}
	}
	return due
}

func (h *Hub) sweep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	tooOld := time.Since(h.born) - h.cfg.HistoryAge
	for n := 1; !h.closed; n++ {
		if k, d := h.oldest, h.departures.first; k != nil && k.since <= tooOld {
			h.drop(k)
		} else if d != nil && d.at <= tooOld {
			h.forget(d.user)
		} else {
			break
		}
		if n%sweepMost == 0 {
			h.yield()
		}
	}
	h.sweeping = false
	h.scheduleSweep()
}

// completeFrom is the place from which all that concerns u is kept.
func (h *Hub) completeFrom(u *user) point {
	if h.isLog() {
		return h.floor
	}
	return later(u.floor, h.everybody.floor)
}

// between appends to dst what is kept for u and for everybody after from and up to
// until, in order, at most n entries; all says that there are no more.
func (h *Hub) between(dst []*kept, u *user, from, until point, n int) (list []*kept, all bool) {
	mine, common := after(u.kept.all(), from), after(h.everybody.kept.all(), from)
	for range n {
		next := &mine
		if len(mine) == 0 || len(common) > 0 && common[0].at.before(mine[0].at) {
			next = &common
		}
		if len(*next) == 0 || until.before((*next)[0].at) {
			return dst, true
		}
		dst = append(dst, (*next)[0])
		*next = (*next)[1:]
	}
	return dst, false
}

// after is the part of a list behind a place.
func after(list []*kept, p point) []*kept {
	i, found := slices.BinarySearchFunc(list, p, func(k *kept, p point) int { return k.at.compare(p) })
	if found {
		i++
	}
	return list[i:]
}

// isKnown reports whether p, which is not older than the floor, is a place of the
// log that a stream may have been told: an entry, or the place just before one.
func (h *Hub) isKnown(p point) bool {
	if p == h.floor || p == h.pos {
		return true
	}
	ids := h.ids.all()
	i, found := slices.BinarySearchFunc(ids, p, point.compare)
	return found || i < len(ids) && ids[i].pred() == p
}
