package hub

import (
	"sync"
	"time"
)

// A userHistory is the history of a PubSub: the newest entries of each user with a client, or with one within
// the age.
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

// isOff reports whether the history is disabled.
func (s *userHistory) isOff() bool { return s.limit <= 0 || s.perUser <= 0 || s.age <= 0 }

// begin enqueues later entries immediately, because the history is short.
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

// owner returns nil: entries of a user without a client within the age are not stored.
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
	// Remove up to two old entries for each new one, so that the sweep has little to do.
	for range 2 {
		if s.oldest != nil && n.since-s.oldest.since > s.age {
			s.drop(s.oldest)
		}
	}
	s.trim()
	s.sweeper.schedule()
}

// trim removes entries until the history is within its limit: first the oldest entries, then the users that
// left first.
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
	n.older, n.newer = nil, nil // a replay that still refers to n must not keep its neighbors in memory
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

// forget removes a user without a client, and its entries.
func (s *userHistory) forget(u *user) {
	for u.past.entries.len() > 0 {
		s.drop(u.past.entries.at(0))
	}
	s.release(u)
	s.users.remove(u)
}

// release removes a user from the list of users without a client.
func (s *userHistory) release(u *user) {
	s.retained.remove(u.past.retained)
	u.past.retained = nil
	s.discharge(u)
}

// A retained is a user without a client whose entries are still stored.
type retained struct {
	user           *user
	since          time.Duration // since userHistory.born
	earlier, later *retained
}

// A retainedList lists users in the order in which they left.
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

// A sweeper removes old entries and users while the hub is idle. It runs a little later than necessary, by a
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
	sweepMost = 256 // entries and users that are removed before the lock is released
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

// due returns when the oldest entry or user must be removed; zero otherwise.
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

// close stops the sweeper permanently. mu is held.
func (s *sweeper) close() {
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
