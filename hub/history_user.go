package hub

import (
	"iter"
	"strings"
	"sync"
	"time"
)

// A userHistory is the history of a PubSub: the newest entries of each user and group with a client, or with one within
// the age; and those of all others in a ring.
type userHistory struct {
	entries
	seq     *sequence
	owners  *owners
	perUser int // entries
	age     time.Duration
	born    time.Time // Hub.born

	oldest, newest *entryNode // of all owners
	retained       retainedList
	sweeper        sweeper

	// ring has the messages of owners without a client; Hub.add stores them. It includes those of retained owners, because
	// these may be forgotten before a client comes.
	ring ring
	// ageLow is the latest departure of an owner that was forgotten. All later messages of owners that are not in the table
	// were stored in the ring.
	ageLow departure
	// droppedAt is the time of the newest entry that was dropped before its age for lack of bytes, or that was for all users.
	droppedAt time.Duration // since born; 0: none
}

func newUserHistory(h *Hub) *userHistory {
	s := &userHistory{
		entries: entries{limit: h.cfg.HistoryBytes}, seq: &h.seq, owners: &h.owners,
		perUser: h.cfg.HistoryPerUser, age: h.cfg.HistoryAge, born: h.born,
	}
	s.sweeper = sweeper{history: s, mu: &h.mu}
	if !s.isOff() {
		s.ring = newRing(s.limit/2, s.now, s.trim)
	}
	return s
}

// now returns the time since born.
func (s *userHistory) now() time.Duration { return time.Since(s.born) }

func (s *userHistory) size() (entries int, bytes int64) {
	return s.count + s.ring.entries, s.bytes + s.ring.bytes
}

func (s *userHistory) reach() (here, elsewhere time.Duration) {
	if s.isOff() {
		return 0, 0
	}
	now := s.now()
	here = min(s.age, now-s.droppedAt)
	elsewhere = min(here, now-s.ageLow.at)
	if since, all := s.ring.reach(); !all {
		elsewhere = max(0, min(elsewhere, now-since))
	}
	return here, min(elsewhere, now-s.seq.markers.oldest(now)) // ids from other hubs count from markers
}

func (s *userHistory) close() { s.sweeper.close() }

// isOff reports whether the history is disabled.
func (s *userHistory) isOff() bool { return s.limit <= 0 || s.perUser <= 0 || s.age <= 0 }

// begin enqueues later entries immediately, because the whole history is in memory.
func (s *userHistory) begin(c *Client, resume string) (opening ID) {
	if resume == "" {
		return s.seq.newest
	}
	h := c.hub
	p, state := h.locate(resume)
	if state == placeKnown && p.at == s.seq.newest {
		c.queueStart = p.at // it has resumed: see doubts
		return p.at
	}
	r := c.startReplay()
	if h.waiting.wake != nil && (state == placeUnknownMarker || state == placeAhead) {
		h.waiting.add(r, resume)
		return UnknownID
	}
	return r.resume(p, state)
}

// ready is called for each part of a replay, so that entries that are dropped meanwhile turn into a gap. For the user and
// for each group, either all entries since the place of the client are stored here, or they are in the ring (R16).
func (s *userHistory) ready(r *replay) bool {
	if r.isAtEnd() {
		return true
	}
	from, lowest := s.broadcasts.past.lowWater, max(s.ring.lowWater, s.ageLow.messages)
	for i, o := 0, r.client.user; o != nil; i, o = i+1, r.client.group(i) {
		from = later(from, o.past.lowWater)
		if low := min(o.past.since, lowest); r.cursor.Ms < low {
			from = later(from, s.seq.messageID(low))
		}
	}
	if r.cursor.before(from) {
		r.fail(from, GapHistoryExpired)
		return false
	}
	return s.search(r)
}

// ringLooks is how many entries of the ring a replay looks at before it releases the lock.
const ringLooks = 1024

// search does a part of the search for the entries in the ring, and reports whether it is complete.
func (s *userHistory) search(r *replay) bool {
	if r.absent == nil || r.absent.upTo <= r.cursor.Ms { // not begun, or it had found only a part
		var owners []ringOwner
		for i, o := 0, r.client.user; o != nil; i, o = i+1, r.client.group(i) {
			if r.cursor.Ms < o.past.since {
				owners = append(owners, s.ring.owner(hashOf(o.name), Recipient{o.name, o != r.client.user}, o.past.since))
			}
		}
		if owners == nil {
			r.absent = nil
			return true
		}
		r.absent = s.ring.search(r.cursor.Ms, owners)
	}
	return s.ring.step(r.absent, ringLooks)
}

// between merges the entries that were stored for the owners and for all users with those of the ring.
func (s *userHistory) between(r *replay) (entries iter.Seq[*entryNode], upTo ID) {
	c, after, end := r.client, r.cursor, r.end
	if r.absent == nil || r.isAtEnd() { // at the end, a search of which only a part was read is not repeated
		return s.entries.between(c, after, end), end
	}
	if r.absent.upTo < end.Ms {
		end = s.seq.messageID(r.absent.upTo)
	}
	return func(yield func(*entryNode) bool) {
		for n := range s.entries.between(c, after, end) {
			if !s.fromRing(r.absent, after.Ms, n.id.Ms, yield) || !yield(n) {
				return
			}
		}
		s.fromRing(r.absent, after.Ms, end.Ms, yield)
	}, end
}

// fromRing yields the entries that a search has found, with numbers in (after, upTo].
func (s *userHistory) fromRing(search *ringSearch, after, upTo uint64, yield func(*entryNode) bool) bool {
	for {
		number, ok := s.ring.peek(search, after)
		if !ok || number > upTo {
			return true
		}
		e := s.ring.take(search)
		if !yield(&entryNode{id: s.seq.messageID(e.ID.Ms), topic: e.Topic, payload: e.Payload, gap: e.Gap}) {
			return false
		}
	}
}

// owner returns nil: entries of an owner without a client within the age are only in the ring.
func (s *userHistory) owner(Recipient) *owner { return nil }

func (s *userHistory) isTimed() bool { return !s.isOff() }

func (s *userHistory) add(o *owner, e Entry) { s.keep(o, e, false) }

func (s *userHistory) addForAll(e Entry, allTopics bool) { s.keep(&s.broadcasts, e, allTopics) }

func (s *userHistory) keep(owner *owner, e Entry, allTopics bool) {
	if s.isOff() {
		owner.past.lowWater = e.ID
		return
	}
	n := s.push(owner, e, allTopics)
	n.since = e.time().Sub(s.born)
	if n.older = s.newest; n.older == nil {
		s.oldest = n
	} else {
		n.older.newer = n
	}
	s.newest = n
	if owner.past.entries.len() > s.perUser {
		oldest := owner.past.entries.at(0)
		if owner == &s.broadcasts {
			s.droppedAt = max(s.droppedAt, oldest.since)
		}
		s.drop(oldest)
	}
	// Remove up to two old entries for each new one, so that the sweep has little to do.
	for range 2 {
		if s.oldest != nil && n.since-s.oldest.since > s.age {
			s.drop(s.oldest)
		}
	}
	s.trim()
	s.sweeper.schedule()
}

// trim removes entries until the history is within its limit: first the oldest entries, then the owners that
// left first. The ring keeps what it has: it uses at most half of the limit.
func (s *userHistory) trim() {
	limit := s.limit - s.ring.bytes
	for s.bytes > limit && s.oldest != nil {
		s.droppedAt = max(s.droppedAt, s.oldest.since)
		s.drop(s.oldest)
	}
	for s.bytes > limit && s.retained.first != nil {
		s.forget(s.retained.first.owner)
	}
}

// drop removes the oldest entry of its owner.
func (s *userHistory) drop(n *entryNode) {
	if n.older == nil {
		s.oldest = n.newer
	} else {
		n.older.newer = n.newer
	}
	if n.newer == nil {
		s.newest = n.older
	} else {
		n.newer.older = n.older
	}
	n.older, n.newer = nil, nil // a replay that still refers to n must not keep its neighbors in memory
	s.pop(n)
	n.owner.past.lowWater = n.id
}

func (s *userHistory) joined(o *owner, isNew bool) {
	if isNew {
		o.past.since = s.seq.newest.Ms
	} else {
		s.release(o)
	}
}

func (s *userHistory) left(o *owner) {
	now := s.now()
	s.retain(o, now, departure{s.seq.newest.Ms, now})
}

// retain adds an owner without a client to the list of these.
func (s *userHistory) retain(o *owner, now time.Duration, last departure) {
	o.past.retained = s.retained.add(o, now, last)
	s.charge(o)
	if s.isOff() {
		s.forget(o)
		return
	}
	s.trim()
	s.sweeper.schedule()
}

// hold does not change anything if the user has a client (R25). All messages of a user who never had one are also in the ring:
// no client misses them if the user is forgotten.
func (s *userHistory) hold(user Recipient) (ok bool) {
	if !s.isOff() {
		switch o := s.owners.get(user); {
		case o == nil:
			user.Name = strings.Clone(user.Name)
			o = s.owners.add(user)
			s.joined(o, true)
			s.retain(o, s.now(), departure{})
		case o.past.retained != nil:
			last := o.past.retained.last
			s.release(o)
			s.retain(o, s.now(), last)
		}
	}
	return s.seq.marker != s.seq.markers.own
}

// forget removes an owner without a client, and its entries. What was published since its last client left is in the ring, but
// not what was before (R15).
func (s *userHistory) forget(o *owner) {
	for o.past.entries.len() > 0 {
		s.drop(o.past.entries.at(0))
	}
	s.ageLow = s.ageLow.later(o.past.retained.last)
	s.release(o)
	s.owners.remove(o)
}

// release removes an owner from the list of owners without a client.
func (s *userHistory) release(o *owner) {
	s.retained.remove(o.past.retained)
	o.past.retained = nil
	s.discharge(o)
}

// A departure is the moment at which the last client of an owner left; zero if there was none.
type departure struct {
	messages uint64        // number
	at       time.Duration // since userHistory.born
}

func (d departure) later(e departure) departure {
	return departure{max(d.messages, e.messages), max(d.at, e.at)}
}

// A retained is an owner without a client whose entries are still stored.
type retained struct {
	owner          *owner
	since          time.Duration // when it was added to the list, since userHistory.born
	last           departure
	earlier, later *retained
}

// A retainedList lists owners in the order in which they left, or were held.
type retainedList struct{ first, last *retained }

func (l *retainedList) add(o *owner, since time.Duration, last departure) *retained {
	r := &retained{owner: o, since: since, last: last, earlier: l.last}
	if l.last == nil {
		l.first = r
	} else {
		l.last.later = r
	}
	l.last = r
	return r
}

func (l *retainedList) remove(r *retained) {
	if r.earlier == nil {
		l.first = r.later
	} else {
		r.earlier.later = r.later
	}
	if r.later == nil {
		l.last = r.earlier
	} else {
		r.later.earlier = r.earlier
	}
}

// A sweeper removes old entries and owners while the hub is idle. It runs a little later than necessary, by a
// fraction of the age (1/sweepPart), so that it can remove several at once.
type sweeper struct {
	history *userHistory
	mu      *sync.Mutex // Hub.mu

	// Guarded by mu.
	timer  *time.Timer // nil: never set
	active bool        // the timer is set, or run is active
	closed bool
}

const (
	sweepPart = 64
	minSweep  = 10 * time.Millisecond
	maxSweep  = time.Second
	sweepMost = 256 // entries and owners that are removed before the lock is released
)

// schedule sets the timer, if there is anything to remove later. mu is held.
func (s *sweeper) schedule() {
	if s.active || s.closed {
		return
	}
	due := s.due()
	if due.IsZero() {
		return
	}
	s.active = true
	wait := time.Until(due) + min(max(s.history.age/sweepPart, minSweep), maxSweep)
	if s.timer == nil {
		s.timer = time.AfterFunc(wait, s.run)
	} else {
		s.timer.Reset(wait)
	}
}

// due returns when the oldest entry or owner must be removed; zero otherwise.
func (s *sweeper) due() (due time.Time) {
	h := s.history
	if h.oldest != nil {
		due = h.born.Add(h.oldest.since + h.age)
	}
	if r := h.retained.first; r != nil {
		if forget := h.born.Add(r.since + h.age); due.IsZero() || forget.Before(due) {
			due = forget
		}
	}
	return due
}

func (s *sweeper) run() {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.history
	tooOld := time.Since(h.born) - h.age
	for n := 1; !s.closed; n++ {
		if e, r := h.oldest, h.retained.first; e != nil && e.since <= tooOld {
			h.drop(e)
		} else if r != nil && r.since <= tooOld {
			h.forget(r.owner)
		} else {
			break
		}
		if n%sweepMost == 0 {
			yield(s.mu)
		}
	}
	s.active = false
	s.schedule()
}

// close stops the sweeper permanently. mu is held.
func (s *sweeper) close() {
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
