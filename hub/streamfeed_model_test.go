package hub_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/hub"
)

// A simulated log that two hubs read at different paces. The log is trimmed and loses its newest entries. Clients
// switch between hubs. Queries are answered late and in parts, with what the log then contains. Queues have random
// limits, and time passes between the end of a client and the Take that reports it.
type simEntry struct {
	id    uint64        // Ms
	to    hub.Recipient // zero: only the id
	topic string
}
type sim struct {
	t       *testing.T
	r       *rand.Rand
	g       *rand.Rand // decides about groups; nil: no groups
	log     []simEntry // entries of the primary
	newest  uint64
	trimmed uint64 // newest trimmed id
	hubs    []*simHub
	clients []*simClient
	saved   []savedID
	resets  int
	trace   []string
	lost    map[uint64]bool
	used    map[uint64]bool
}
type savedID struct {
	user string
	id   hub.ID
	old  bool // of entries that the log has lost
}
type simHub struct {
	*hub.StreamFeed
	s         *sim
	cursor    uint64
	queries   []*hub.Query
	needReset bool
}
type simClient struct {
	*listener
	h       *simHub
	user    string
	groups  []string
	topics  []string
	last    uint64 // complete up to here
	void    bool   // it does not have an id: it must receive a gap first
	mustGap bool   // after a reset: it must receive a gap before the next entry
	pending []*hub.Frame
	stalled int  // steps for which its consumer does not run
	done    bool // Take has reported the end
}

func (s *sim) tr(f string, a ...any) { s.trace = append(s.trace, fmt.Sprintf(f, a...)) }
func (s *sim) fail(f string, a ...any) {
	s.t.Helper()
	s.t.Fatalf("%s\n%s", fmt.Sprintf(f, a...), strings.Join(s.trace, "\n"))
}

func (s *sim) entry(e simEntry) hub.Entry {
	return hub.Entry{ID: hub.ID{Ms: e.id}, Topic: e.topic, Payload: strconv.FormatUint(e.id, 10)}
}
func (s *sim) after(id, upTo uint64) (list []simEntry) {
	for _, e := range s.log {
		if e.id > id && e.id <= upTo {
			list = append(list, e)
		}
	}
	return
}

func (h *simHub) step() { // reads some entries
	s := h.s
	if h.needReset {
		h.needReset = false
		h.Reset(hub.ID{Ms: s.newest})
		h.cursor = s.newest
		s.tr("hub %p reset to %d", h, s.newest)
		return
	}
	n := 1 + s.r.IntN(oneOf(s.r, 2, 10))
	if s.trimmed > h.cursor {
		up := s.newest
		if len(s.log) > 0 {
			up = s.log[0].id - 1
		}
		s.tr("hub %p lose up to %d", h, up)
		if len(s.log) > 0 {
			h.Lose(hub.ID{Ms: up}) // in Redis the id before it; here the ids are sparse
		} else {
			h.Lose(hub.ID{Ms: up})
		}
		h.cursor = up
	}
	for _, e := range s.after(h.cursor, s.newest) {
		if n--; n < 0 {
			break
		}
		h.Append(e.to, s.entry(e))
		h.cursor = e.id
		s.tr("hub %p reads %d for %v/%q", h, e.id, e.to, e.topic)
	}
}

func (h *simHub) answer() {
	s := h.s
	if len(h.queries) == 0 {
		return
	}
	i := len(h.queries) - 1 - s.r.IntN(min(oneOf(s.r, 1, 100), len(h.queries)))
	q := h.queries[i]
	h.queries = slices.Delete(h.queries, i, i+1)
	id := q.After.Ms
	ok := false
	for _, e := range s.log {
		if e.id == id || e.id-1 == id && q.After.Seq == 0 {
			ok = true
		}
	}
	first := s.newest + 1
	if len(s.log) > 0 {
		first = s.log[0].id
	}
	switch {
	case ok, id == s.newest, id == 0 && s.trimmed == 0:
	case id < first:
		s.tr("answer %v: trimmed", q.After)
		q.Answer(nil, hub.ID{}, hub.GapHistoryExpired)
		return
	default:
		s.tr("answer %v: unknown", q.After)
		q.Answer(nil, hub.ID{}, hub.GapUnknownID)
		return
	}
	if q.After.Ms >= q.UpTo.Ms {
		q.Answer(nil, q.After, 0)
		return
	}
	covered, max := q.UpTo, 1+s.r.IntN(4)
	var list []hub.Entry
	for _, e := range s.after(id, q.UpTo.Ms) {
		if e.to == hub.User(q.User) || e.to == hub.User("*") || e.to.Group && slices.Contains(q.Groups, e.to.Name) {
			list = append(list, s.entry(e))
		}
		if max--; max == 0 {
			covered = hub.ID{Ms: e.id}
			break
		}
	}
	s.tr("answer %s %v..%v: %d entries, covered %v", q.User, q.After, q.UpTo, len(list), covered)
	q.Answer(list, covered, 0)
}

func (c *simClient) concerns(e simEntry) bool {
	return (e.to == hub.User(c.user) || e.to == hub.User("*") || e.to.Group && slices.Contains(c.groups, e.to.Name)) && (c.topics == nil || slices.Contains(c.topics, e.topic))
}

// complete checks that no entry that concerns c was ever in the log between last and id.
func (s *sim) complete(c *simClient, id uint64, all []simEntry, what string) {
	for _, e := range all {
		if e.id > c.last && e.id < id && c.concerns(e) {
			s.fail("%s: client %p of %s %q %q lost %d: %s at %d after %d", what, c, c.user, c.groups, c.topics, e.id, what, id, c.last)
		}
	}
}

func runSim(t *testing.T, seed uint64) { runSimWith(t, seed, rand.New(rand.NewPCG(seed, 2))) }

func runSimWithoutGroups(t *testing.T, seed uint64) { runSimWith(t, seed, nil) }

func runSimWith(t *testing.T, seed uint64, groups *rand.Rand) {
	s := &sim{t: t, r: rand.New(rand.NewPCG(seed, 1)), g: groups, lost: map[uint64]bool{}, used: map[uint64]bool{}}
	var all []simEntry
	add := func() {
		for s.newest += 2 + s.r.Uint64N(3); s.used[s.newest] || s.used[s.newest-1] || s.used[s.newest+1]; s.newest++ {
		}
		s.used[s.newest] = true
		e := simEntry{s.newest, hub.User(oneOf(s.r, "1", "2", "3", "1", "2", "*", "")), []string{"", "a"}[s.r.IntN(2)]}
		if s.g != nil && e.to.Name != "" && s.g.IntN(2) == 0 {
			e.to = hub.Group(oneOf(s.g, "1", "g", "*"))
		}
		s.log = append(s.log, e)
		all = append(all, e)
		s.tr("add %d %v/%q", e.id, e.to, e.topic)
	}
	newH := func() *simHub {
		h := &simHub{s: s}
		h.StreamFeed = newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: oneOf[int64](s.r, 200, 500, 1000, 20000, 20000, 20000), FanOut: s.r.IntN(3),
			QueueFrames: oneOf(s.r, 1, 2, 3, 1000), QueueTotalBytes: oneOf[int64](s.r, 0, 1, 3, 6),
			QueueGrace: oneOf(s.r, 0, 0, 100*time.Millisecond), GapSpread: oneOf(s.r, 0, 100*time.Millisecond)}, func(q *hub.Query) { h.queries = append(h.queries, q) })
		return h
	}
	loadH := func(h *simHub) {
		n := min(len(s.log), s.r.IntN(6))
		win := s.log[len(s.log)-n:]
		floor := s.newest
		if n > 0 {
			floor = win[0].id - 1
		}
		if n == len(s.log) && s.trimmed == 0 {
			floor = 0
		}
		s.tr("hub %p loads %d entries, floor %d, newest %d", h, n, floor, s.newest)
		h.Load(hub.ID{Ms: floor}, hub.ID{Ms: s.newest}, func(yield func(hub.Recipient, hub.Entry) bool) {
			for _, e := range win {
				if !yield(e.to, s.entry(e)) {
					return
				}
			}
		})
		h.cursor = s.newest
	}
	for range s.r.IntN(6) {
		add()
	}
	for range 2 {
		h := newH()
		s.hubs = append(s.hubs, h)
		if s.r.IntN(3) > 0 && s.newest > 0 {
			loadH(h)
		}
	}
	loaded := map[*simHub]bool{}
	for _, h := range s.hubs {
		loaded[h] = h.cursor > 0
	}
	take := func(c *simClient, max int) {
		if c.stalled > 0 {
			return
		}
		for range max {
			if len(c.pending) > 0 {
				c.Settle(c.pending, len(c.pending))
				c.pending = nil
			}
			frames, reason := c.Take(nil)
			if len(frames) == 0 {
				if reason != 0 && !c.done {
					c.done = true
					s.tr("client %p is ended: %v", c, word(reason))
				}
				if id, ok := c.Position(); ok {
					if c.void {
						s.fail("position %v without a gap after a void opening", id)
					}
					// A client that had ended before the reset keeps the position at its end.
					if s.lost[id.Ms] && (c.h.needReset || reason != 0) {
						c.mustGap = true
						c.last = id.Ms
						return
					}
					if c.mustGap {
						s.fail("client %p: position %v, no gap since the reset", c, id)
					}
					if id.Ms < c.last {
						s.fail("position %v behind %d", id, c.last)
					}
					s.complete(c, id.Ms+1, all, "position")
					c.last = id.Ms
				}
				return
			}
			for _, f := range frames {
				s.tr("client %p gets %v %s", c, f.ID, f.Wire)
				if f.Gap != 0 {
					lostSome := false
					for _, e := range all {
						if e.id > c.last && e.id <= s.trimmed {
							lostSome = true
						}
					}
					if s.resets == 0 && f.Gap == hub.GapHistoryExpired && !lostSome && c.last > s.trimmed && c.Reason() == 0 {
						s.fail("false gap: client %p at %d, trimmed %d", c, c.last, s.trimmed)
					}
					if s.resets == 0 && f.Gap == hub.GapUnknownID && !c.void && c.last <= s.newest {
						known := c.last == 0
						for _, e := range all {
							known = known || e.id == c.last
						}
						if known && c.last > s.trimmed {
							s.fail("false unknown-id: client %p at %d", c, c.last)
						}
					}
					c.void, c.mustGap = false, false
					c.last = f.ID.Ms
					continue
				}
				if c.void {
					s.fail("a message before the gap")
				}
				if s.lost[f.ID.Ms] {
					c.mustGap, c.last = true, f.ID.Ms
					continue
				}
				if c.mustGap {
					s.fail("client %p: message %v, no gap since the reset", c, f.ID)
				}
				i := slices.IndexFunc(all, func(e simEntry) bool { return e.id == f.ID.Ms })
				if i < 0 || !c.concerns(all[i]) || string(f.Wire) != strconv.FormatUint(f.ID.Ms, 10) {
					s.fail("client %p of %s %q %q: %v %s is not for it", c, c.user, c.groups, c.topics, f.ID, f.Wire)
				}
				if f.ID.Ms <= c.last {
					s.fail("duplicate or backwards: %d after %d", f.ID.Ms, c.last)
				}
				s.complete(c, f.ID.Ms, all, "message")
				c.last = f.ID.Ms
			}
			c.pending = frames
		}
	}
	// Each run prefers different steps, because some bugs need many of one kind and few of another.
	var steps []int
	count := stepCount
	if s.g == nil {
		count = stepPosition
	}
	for step := range count {
		for range oneOf(s.r, 1, 2, 8) {
			steps = append(steps, step)
		}
	}
	resets := oneOf(s.r, 10, 40, 1000)
	for range 200 {
		if s.r.IntN(resets) == 0 && len(s.log) > 0 {
			k := 1 + s.r.IntN(min(3, len(s.log)))
			cut := s.log[len(s.log)-k:]
			s.log = slices.Clone(s.log[:len(s.log)-k])
			for _, e := range cut {
				s.lost[e.id] = true
			}
			all = slices.DeleteFunc(all, func(e simEntry) bool { return s.lost[e.id] })
			s.newest = s.trimmed
			if n := len(s.log); n > 0 {
				s.newest = s.log[n-1].id
			}
			s.resets++
			s.tr("cut down to %d", s.newest)
			for _, h := range s.hubs {
				h.needReset = h.needReset || loaded[h] && h.cursor > s.newest
			}
			for _, c := range s.clients {
				c.mustGap = c.mustGap || slices.ContainsFunc(cut, func(e simEntry) bool { return e.id == c.last })
			}
			for i := range s.saved {
				s.saved[i].old = s.saved[i].old || slices.ContainsFunc(cut, func(e simEntry) bool { return e.id == s.saved[i].id.Ms })
			}
		}
		switch oneOf(s.r, steps...) {
		case stepAdd:
			add()
		case stepTrim:
			if len(s.log) > 0 && s.r.IntN(4) == 0 {
				n := 1 + s.r.IntN(min(oneOf(s.r, 1, 1, 100), len(s.log)))
				s.trimmed = s.log[n-1].id
				s.log = slices.Clone(s.log[n:])
				s.tr("trim up to %d", s.trimmed)
			}
		case stepRead:
			h := s.hubs[s.r.IntN(2)]
			if loaded[h] {
				h.step()
			} else if s.newest > 0 {
				loadH(h)
				loaded[h] = true
			}
		case stepRegister:
			if len(s.clients) < 6 {
				h := s.hubs[s.r.IntN(2)]
				c := &simClient{h: h, user: oneOf(s.r, "1", "2", "3"), topics: [][]string{nil, {"a"}}[s.r.IntN(2)]}
				if s.g != nil {
					c.groups = someOf(s.g, "1", "g", "*")
				}
				o := hub.Options{User: c.user, Groups: c.groups, Topics: c.topics}
				if len(s.saved) > 0 && s.r.IntN(4) > 0 {
					v := s.saved[len(s.saved)-1-s.r.IntN(min(oneOf(s.r, 3, 100), len(s.saved)))]
					o.Resume = v.id.String()
					c.mustGap = v.old
				}
				c.listener = register(t, h.Hub, o)
				op := c.Opening()
				s.tr("client %p of %s %q %q on hub %p resumes %q opens %v", c, c.user, c.groups, c.topics, h, o.Resume, op)
				if op == hub.UnknownID {
					c.void = true
				}
				c.last = op.Ms
				c.mustGap = c.mustGap || s.lost[op.Ms] && op != hub.UnknownID && c.h.needReset
				s.clients = append(s.clients, c)
				if s.r.IntN(2) == 0 {
					take(c, 1)
				}
			}
		case stepEnd:
			if len(s.clients) > 0 {
				c := s.clients[s.r.IntN(len(s.clients))]
				if s.r.IntN(2) == 0 {
					take(c, 1) // may send a query
				}
				if s.r.IntN(3) > 0 {
					s.tr("client %p finishes", c)
					c.Finish(hub.ReasonDrain)
				} else {
					s.tr("client %p ends", c)
					c.End(hub.ReasonClosed)
				}
				c.stalled = s.r.IntN(oneOf(s.r, 1, 100))
				take(c, 100)
			}
		case stepTake:
			if len(s.clients) > 0 {
				take(s.clients[s.r.IntN(len(s.clients))], 1+s.r.IntN(2))
			}
		case stepWait:
			time.Sleep(time.Duration(s.r.IntN(150)) * time.Millisecond)
		case stepAnswer:
			s.hubs[s.r.IntN(2)].answer()
		case stepPosition:
			h, user := s.hubs[s.g.IntN(2)], oneOf(s.g, "1", "2", "3")
			text, ok := h.Position(user)
			if ok != loaded[h] {
				s.fail("hub %p: position %s, %v; loaded: %v", h, text, ok, loaded[h])
			}
			if ms, err := strconv.ParseUint(strings.TrimSuffix(text, "-0"), 10, 64); ok {
				if err != nil {
					s.fail("position %q", text)
				}
				s.tr("position of %s on hub %p: %s", user, h, text)
				s.saved = append(s.saved, savedID{user, hub.ID{Ms: ms}, s.lost[ms]})
			}
		}
		s.clients = slices.DeleteFunc(s.clients, func(c *simClient) bool {
			c.stalled = max(c.stalled-1, 0)
			if c.done && !c.void {
				s.saved = append(s.saved, savedID{c.user, hub.ID{Ms: c.last}, c.mustGap})
			}
			return c.done
		})
	}
	for _, h := range s.hubs {
		if !loaded[h] {
			loadH(h)
		}
		for h.needReset || h.cursor < s.newest {
			h.step()
		}
	}
	for range 200 {
		for _, c := range s.clients {
			c.stalled = 0
			take(c, 100)
		}
		for _, h := range s.hubs {
			for len(h.queries) > 0 {
				h.answer()
			}
		}
	}
	for _, c := range s.clients {
		take(c, 100)
		if c.done {
			continue
		}
		_, ok := c.Position()
		if !ok && c.last <= s.newest { // otherwise the log has not reached its id yet
			s.fail("client %p never gets live", c)
		}
		s.complete(c, s.newest+1, all, "end")
		c.End(hub.ReasonClosed)
	}
}

// The kinds of steps of a run.
const (
	stepAdd = iota
	stepTrim
	stepRead
	stepRegister
	stepEnd
	stepTake
	stepWait
	stepAnswer
	stepPosition // only with groups
	stepCount
)

// oneOf returns one of the values at random.
func oneOf[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// someOf returns a random part of the values, some of them twice.
func someOf(r *rand.Rand, values ...string) (some []string) {
	for range r.IntN(len(values) + 1) {
		some = append(some, oneOf(r, values...))
	}
	return some
}

// Invariant 12 of a StreamFeed, in random runs against an oracle: no entry that concerns a client is lost without a
// gap or received twice, it receives no others, and gaps are announced only for losses.
func TestInvariant12ResumeFromALogWithoutLossOrDuplicate(t *testing.T) {
	runSeeds(t, 500, runSim)
}

// Seeds that reproduce former bugs.
func TestInvariant12SeedsThatFailed(t *testing.T) {
	for _, seed := range []uint64{
		658,  // an answer was accepted after a second reset
		35,   // the hub passed an id that it had requested from the log
		1777, // an answer was accepted after the end of the client, when its user had been removed
		4473, // the id of an early client was looked up after the window had passed it
		78,   // an entry was stored for a user that its routing had just removed
	} {
		runSeed(t, seed, runSimWithoutGroups)
	}
}
