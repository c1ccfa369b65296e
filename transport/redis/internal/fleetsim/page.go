package fleetsim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// A page is a browser with one stream, which reconnects to any hub whenever its stream ends.
type page struct {
	world  *World
	name   string
	user   string
	topics []string // nil: all
	groups []string // of which its user is a member at the next connect
	poll   bool
	pings  bool // ping=event
	accept bool // it accepts text/event-stream
	slow   bool // it stops reading now and then

	id           string   // of the newest block
	idSince      int      // number of messages that had been published when that id was written first
	giver        *Process // of id
	stream       *Stream  // nil: not connected
	disconnected time.Duration

	oracle
}

// A Stream is one connection of a page.
type Stream struct {
	process  *Process
	page     *page
	number   int
	random   *rand.Rand // guarded by World.mu; timers of the hub use it, too
	opened   time.Duration
	inbox    []arrival
	last     time.Duration // when the newest block arrives
	blocked  time.Duration // until when the page reads nothing
	blocks   int           // how many were written
	received int
	ended    bool // the process has closed it
	gone     bool // the page has closed it
	moved    bool // the id is from another process

	// Immutable: the request.
	User          string
	Topics        []string
	Groups        []string // empty if the process does not subscribe to groups
	LastID        string
	Poll          bool
	PingEvents    bool
	AcceptsEvents bool // the Accept header contains text/event-stream
}

// A Block is what a hub writes to a stream.
type Block struct {
	Event   string // "open", "message", "gap", "ping", "busy", "bye"; "": a comment
	ID      string
	Reason  string
	Payload string
}

// An arrival is a block in flight to the page, or the end of the stream.
type arrival struct {
	at    time.Duration
	block Block
	end   bool
	state snapshot // of the process when it wrote the block
}

// Number is a number that no other stream has.
func (s *Stream) Number() int { return s.number }

// Name describes the stream in the story.
func (s *Stream) Name() string { return s.page.name }

// Between returns a random duration. Unlike Process.Between, timers of the hub may cause calls.
func (s *Stream) Between(low, high time.Duration) time.Duration {
	s.page.world.mu.Lock()
	defer s.page.world.mu.Unlock()
	return between(s.random, low, high)
}

// OneIn returns true once in n times.
func (s *Stream) OneIn(n int) bool {
	s.page.world.mu.Lock()
	defer s.page.world.mu.Unlock()
	return s.random.IntN(n) == 0
}

// Blocked returns for how long the socket remains full.
func (s *Stream) Blocked() time.Duration { return max(0, s.blocked-s.page.world.Now()) }

// AfterTimer runs f after a time. Only one call may be pending. Timers of the hub may call it.
func (s *Stream) AfterTimer(d time.Duration, f func()) {
	s.page.world.afterTimer(d, uint64(s.number), func() { s.process.do(f) })
}

// Write writes a block, which the page receives later, in order.
func (s *Stream) Write(b Block) {
	w, p := s.page.world, s.process
	if s.ended || s.gone || !p.alive {
		return
	}
	if s.blocks++; s.blocks == 1 && b.Event != "open" && b.Event != "busy" {
		w.fail("%s@%s: a stream begins with %+v", s.page.name, p.Name, b)
	}
	s.send(arrival{block: b, state: p.snapshot()})
}

func (s *Stream) send(a arrival) {
	w := s.page.world
	s.last = max(s.last, w.Now()+s.Between(1*unit, 60*unit))
	a.at = s.last
	s.inbox = append(s.inbox, a)
	w.after(s.last-w.Now(), s.read)
}

// read passes what has arrived to the page.
func (s *Stream) read() {
	for w := s.page.world; len(s.inbox) > 0 && s.inbox[0].at <= w.Now() && s.blocked <= w.Now() && !s.gone; {
		a := s.inbox[0]
		s.inbox = s.inbox[1:]
		if a.end {
			s.reset()
		} else {
			s.receive(a.block, a.state)
		}
	}
}

// End closes the stream after what was written.
func (s *Stream) End() {
	if s.ended {
		return
	}
	s.ended = true
	s.process.forget(s)
	s.send(arrival{end: true})
}

// reset is called when the page notices that the stream has ended.
func (s *Stream) reset() {
	if !s.gone {
		s.page.world.say("%s: the stream of %s ends", s.page.name, s.process.Name)
		s.page.disconnect()
	}
}

// Reject answers with an error status.
func (s *Stream) Reject() {
	s.blocks++
	s.End()
}

func (p *Process) forget(s *Stream) {
	p.streams = slices.DeleteFunc(p.streams, func(x *Stream) bool { return x == s })
}

func (w *World) newPage(number int) *page {
	p := &page{
		world: w, name: fmt.Sprint("P", number), user: fmt.Sprint("u", w.random.IntN(3)),
		poll: w.oneIn(5), pings: w.oneIn(4), accept: w.oneIn(2), slow: w.oneIn(4),
	}
	if w.oneIn(3) {
		p.topics = pick(w.random, [][]string{{""}, {"a"}, {"a", "b"}, {"", "b"}})
	}
	p.join()
	p.oracle = newOracle(p)
	return p
}

// groups are those that have members.
var groups = []string{"g0", "g1", "g2", "u1"} // the last one has the name of a user

// join makes the user of the page a member of random groups, and only of these.
func (p *page) join() {
	p.groups = nil
	for _, g := range groups {
		if p.world.oneIn(3) {
			p.groups = append(p.groups, g)
		}
	}
}

// connect opens a stream at a random hub.
func (p *page) connect() {
	if p.stream != nil {
		return
	}
	w := p.world
	hubs := slices.DeleteFunc(slices.Clone(w.processes), func(h *Process) bool {
		return !h.alive || h.frozen || w.ending && h.draining
	})
	h := pick(w.random, hubs)
	if h == nil {
		w.after(500*unit, p.connect)
		return
	}
	if w.oneIn(4) {
		p.join()
	}
	w.streams++
	s := &Stream{
		process: h, page: p, number: w.streams, random: rand.New(rand.NewPCG(w.random.Uint64(), 0)), opened: w.Now(),
		User: p.user, Topics: p.topics, LastID: p.id, Poll: p.poll, PingEvents: p.pings, AcceptsEvents: p.accept,
	}
	if h.HasGroups() {
		s.Groups = p.groups
	}
	p.stream = s
	w.say("%s connects to %s with id %q, groups %q", p.name, h.Name, w.readable(p.id), s.Groups)
	p.opens(s)
	h.streams = append(h.streams, s)
	h.node.Open(s)
}

// disconnect ends the stream, and connects again later.
func (p *page) disconnect() {
	w := p.world
	if s := p.stream; s != nil {
		s.gone = true
		if !s.ended {
			s.process.After(w.between(0, 1500*unit), func() {
				if !s.ended {
					s.process.forget(s)
					s.process.node.Disconnected(s)
				}
			})
		}
	}
	p.stream, p.disconnected = nil, w.Now()
	d := w.between(0, 2500*unit)
	if p.poll {
		d = w.between(0, 300*unit)
	}
	if w.oneIn(12) && !w.ending {
		d = w.between(5*time.Second, 30*time.Second)
	}
	w.after(d, p.connect)
}

// receive is called when a block has arrived at the page.
func (s *Stream) receive(b Block, state snapshot) {
	p, w := s.page, s.page.world
	if w.oneIn(400) && !w.ending {
		w.say("%s: the connection breaks inside %s", p.name, b.Event)
		p.disconnect()
		return
	}
	if b.Event != "" {
		w.say("%s@%s: %s", p.name, s.process.Name, w.describe(b))
	}
	s.received++
	before := p.id
	if b.ID != "" && b.ID != p.id {
		p.idSince = state.published
	}
	if b.ID != "" {
		p.id, p.giver = b.ID, s.process
	}
	p.check(s, b, before, state)
	switch {
	case b.Event == "bye" || b.Event == "busy":
		p.disconnect()
	case w.ending:
	case w.oneIn(60):
		w.say("%s: the connection breaks after a block", p.name)
		p.disconnect()
	case p.slow && w.oneIn(10):
		s.blocked = w.Now() + w.between(100*unit, 8*time.Second)
		w.after(s.blocked-w.Now(), s.read)
		w.say("%s reads nothing for %v", p.name, s.Blocked())
	}
}

// roam makes the page leave from time to time.
func (p *page) roam(every time.Duration) {
	p.world.after(p.world.between(500*unit, every), func() {
		if !p.world.ending && p.stream != nil {
			p.world.say("%s leaves", p.name)
			p.disconnect()
		}
		p.roam(every)
	})
}
