package hub

import (
	"sync"
	"time"
)

// A userHistory is the history of a PubSub: the newest entries of each user who has a
// client or had one within an age.
type userHistory struct {
	entries
	seq     *sequence
	users   *users
	perUser int // entries
	age     time.Duration
	born    time.Time

	oldest, newest *entryNode // of all users
	retained       retainedList
	sweeper        sweeper
}

func newUserHistory(h *Hub) *userHistory {
	s := &userHistory{
		entries: entries{limit: h.cfg.HistoryBytes}, seq: &h.seq, users: &h.users,
		perUser: h.cfg.HistoryPerUser, age: h.cfg.HistoryAge, born: time.Now(),
	}
	s.sweeper = sweeper{history: s, mu: &h.mu}
	return s
}

func (s *userHistory) close() { s.sweeper.close() }

// isOff reports whether no entries are kept.
func (s *userHistory) isOff() bool { return s.limit <= 0 || s.perUser <= 0 || s.age <= 0 }

// begin lets the queue have what comes from now on: the history is short.
func (s *userHistory) begin(c *Client, resume string) (opening ID) {
	id, known := s.seq.parse(resume)
	if resume == "" || known && id == s.seq.newest {
		return s.seq.newest
	}
	r := c.startReplay()
	switch {
	case !known:
		id = UnknownID
		r.fail(s.seq.newest, GapUnknownID)
	case s.seq.newest.before(id):
		r.fail(s.seq.newest, GapUnknownID)
	default:
		r.cursor = id
	}
	r.goLive()
	return id
}

func (s *userHistory) ready(r *replay) bool {
	from := later(r.client.user.past.lowWater, s.broadcasts.past.lowWater)
	if r.isAtEnd() || !r.cursor.before(from) {
		return true
	}
	r.fail(from, GapHistoryExpired)
	return false
}

// owner returns nil: nothing is kept for a user who was not here within the age.
func (s *userHistory) owner(string) *user { return nil }

func (s *userHistory) isTimed() bool { return !s.isOff() }

func (s *userHistory) add(u *user, e Entry) { s.keep(u, e, false) }

func (s *userHistory) addForAll(e Entry, allTopics bool) { s.keep(&s.broadcasts, e, allTopics) }

func (s *userHistory) keep(owner *user, e Entry, allTopics bool) {
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
		s.drop(owner.past.entries.at(0))
	}
	// Two for each that is added: the sweep then has little to do.
	for range 2 {
		if s.oldest != nil && n.since-s.oldest.since > s.age {
			s.drop(s.oldest)
		}
	}
	s.trim()
	s.sweeper.schedule()
}

// trim makes the history fit into its bytes: the oldest entries go first, then the users
// who left first.
func (s *userHistory) trim() {
	for s.bytes > s.limit && s.oldest != nil {
		s.drop(s.oldest)
	}
	for s.bytes > s.limit && s.retained.first != nil {
		s.forget(s.retained.first.user)
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
	n.older, n.newer = nil, nil // a replay that still refers to it must not hold all the others
	s.pop(n)
	n.owner.past.lowWater = n.id
}

func (s *userHistory) joined(u *user, isNew bool) {
	if isNew {
		u.past.lowWater = s.seq.newest
	} else {
		s.release(u)
	}
}

func (s *userHistory) left(u *user) {
	if s.perUser <= 0 || s.age <= 0 {
		s.users.remove(u)
		return
	}
	u.past.retained = s.retained.add(u, time.Since(s.born))
	s.charge(u)
	s.trim()
	s.sweeper.schedule()
}

// forget drops a user without a client and all that is kept of it.
func (s *userHistory) forget(u *user) {
	for u.past.entries.len() > 0 {
		s.drop(u.past.entries.at(0))
	}
	s.release(u)
	s.users.remove(u)
}

// release takes a user out of the list of those without a client.
func (s *userHistory) release(u *user) {
	s.retained.remove(u.past.retained)
	u.past.retained = nil
	s.discharge(u)
}

// A retained is a user without a client, whose entries are kept for a while.
type retained struct {
	user           *user
	since          time.Duration // since userHistory.born
	earlier, later *retained
}

// A retainedList lists users, the one who left first first.
type retainedList struct{ first, last *retained }

func (l *retainedList) add(u *user, since time.Duration) *retained {
	r := &retained{user: u, since: since, earlier: l.last}
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

// A sweeper drops what has become too old while nothing else moves. It comes late by
// sweepPart of the age, so that it finds more than one thing to do.
type sweeper struct {
	history *userHistory
	mu      *sync.Mutex // Hub.mu

	// Guarded by mu.
	timer  *time.Timer // nil: there was none yet
	active bool        // the timer is set, or run is at work
	closed bool
}

const (
	sweepPart = 64
	minSweep  = 10 * time.Millisecond
	maxSweep  = time.Second
	sweepMost = 256 // entries and users that are dropped before others get the lock
)

// schedule sets the timer, if there is anything that it must run for. mu is held.
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

// due is when the oldest thing is too old; zero: there is nothing.
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
			h.forget(r.user)
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

// close stops the sweep for good. mu is held.
func (s *sweeper) close() {
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
