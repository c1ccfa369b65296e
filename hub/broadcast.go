package hub

import "slices"

// The goroutine that publishes a broadcast does not enqueue it for thousands of clients, because other
// messages would wait meanwhile. Another goroutine distributes it in parts. Every client receives a
// broadcast before any later entry: before the hub does anything with a client, it enqueues the
// client's pending broadcasts. A gap that concerns all clients is a broadcast, too, and so are each entry
// for a large group and a gap for any group.

// broadcasts are the broadcasts that have not been enqueued for all their clients. All fields are guarded by Hub.mu.
//
// A round visits the clients of the broadcasts that are pending when it begins. A client that is not among them keeps an old
// number, so a round visits all clients before a number could wrap around to that one.
type broadcasts struct {
	hub       *Hub
	pending   []*broadcast
	newest    uint32   // number of the newest broadcast; wraps around to 0
	round     uint32   // number of the newest broadcast of the current round
	ofAll     uint32   // round of the newest round that visits all clients
	visiting  []*owner // groups that the round has not visited completely, the last one first; nil stands for all clients
	unvisited int      // how many clients, the first ones, of that group were not visited
	running   bool     // run is active
	closed    bool
}

type broadcast struct {
	scope
	number  uint32
	entry   Entry
	frames  [2]*Frame // plain and named; nil: not encoded yet
	waiting []*Client // with a gap: clients that it was enqueued for
}

// A scope says which clients receive a broadcast.
type scope struct {
	group     *owner // its members; nil: all clients
	allTopics bool   // whatever their topic filters are
	resumed   bool   // only those that resumed when the number of messages was at least since
	since     uint64
}

func (s *scope) includes(c *Client, e *Entry) bool {
	return (s.group == nil || c.membership(s.group) != nil) &&
		(s.allTopics || c.wants(e.Topic)) &&
		(!s.resumed || c.queueStart != ID{} && c.queueStart.Ms >= s.since) &&
		c.accepts(e.ID)
}

const (
	// maxBroadcasts is the maximum number of pending broadcasts. A publisher that exceeds it distributes
	// some itself: see makeRoom.
	maxBroadcasts = 64
	// maxBehind is how many numbers a client may be behind before a round visits all clients.
	maxBehind = 1 << 30
)

// isLater compares the numbers of two broadcasts, which differ by less than 1<<31.
func isLater(a, b uint32) bool { return int32(a-b) > 0 }

// clientsOf returns the clients of a group, or all clients for nil.
func (b *broadcasts) clientsOf(group *owner) []*Client {
	if group == nil {
		return b.hub.clients
	}
	return group.clients
}

// add enqueues e for the clients of a scope, immediately or in parts. For a message, n is the number of these clients; if
// it is distributed in parts, n is 1 for any number.
func (b *broadcasts) add(e *Entry, s scope) (n int) {
	h := b.hub
	if b.closed || len(b.clientsOf(s.group)) <= h.cfg.FanOut && len(b.pending) == 0 {
		if e.Gap != 0 {
			b.addGap(e, s)
			return 0
		}
		return h.route(b.clientsOf(s.group), e)
	}
	if !s.allTopics && !h.audience.has(e.Topic) {
		return 0
	}
	e.time()
	b.newest++
	b.pending = append(b.pending, &broadcast{scope: s, number: b.newest, entry: *e})
	if !b.running {
		b.running = true
		h.goroutines.Go(b.run)
	}
	return 1
}

// addGap enqueues a gap for the clients of a scope, and wakes those that receive nothing else gradually.
func (b *broadcasts) addGap(e *Entry, s scope) {
	h := b.hub
	f := h.encode(e, false)
	f.spread = true
	var waiting []*Client
	clients := b.clientsOf(s.group)
	for i := len(clients) - 1; i >= 0; i-- { // backwards: enqueue may remove the client
		if c := clients[i]; s.includes(c, e) && h.enqueue(c, f, true) {
			waiting = append(waiting, c)
		}
	}
	h.shed()
	h.gaps.spread(waiting)
}

// run distributes broadcasts until none is pending.
func (b *broadcasts) run() {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	b.distribute()
	b.running = false
}

// distribute distributes all pending broadcasts. Hub.mu is held, but released between parts.
func (b *broadcasts) distribute() {
	for len(b.pending) > 0 && !b.closed {
		b.distributePart()
		yield(&b.hub.mu)
	}
}

func (b *broadcasts) isFull() bool { return len(b.pending) >= maxBroadcasts && !b.closed }

// makeRoom is called before a broadcast is numbered: it distributes others if maxBroadcasts are pending.
// Hub.mu is held, but released between parts.
func (b *broadcasts) makeRoom() {
	for b.isFull() {
		b.distributePart()
		yield(&b.hub.mu)
	}
}

// distributePart enqueues the pending broadcasts for the next Config.FanOut clients, or for fewer if several
// are pending.
func (b *broadcasts) distributePart() {
	if len(b.visiting) == 0 {
		b.beginRound()
	}
	for frames := b.hub.cfg.FanOut; frames > 0 && len(b.visiting) > 0; {
		if b.unvisited == 0 {
			b.visit(b.visiting[:len(b.visiting)-1])
			continue
		}
		frames--
		// Backwards: new clients are appended, and a client that ends is replaced by the last one. These have
		// already received the broadcasts.
		clients := b.clientsOf(b.visiting[len(b.visiting)-1])
		if b.unvisited--; b.unvisited < len(clients) {
			frames -= b.catchUp(clients[b.unvisited])
		}
	}
	b.hub.shed()
	if len(b.visiting) == 0 {
		b.remove(b.round)
	}
}

// beginRound begins to visit the groups of the pending broadcasts, each once, or all clients.
func (b *broadcasts) beginRound() {
	b.round = b.newest
	all := b.newest-b.ofAll >= maxBehind
	var groups []*owner
	for _, p := range b.pending {
		if all = all || p.group == nil; !all && !slices.Contains(groups, p.group) {
			groups = append(groups, p.group)
		}
	}
	if all {
		groups, b.ofAll = []*owner{nil}, b.round
	}
	b.visit(groups)
}

// visit continues the round with the last of several groups.
func (b *broadcasts) visit(groups []*owner) {
	if b.visiting = groups; len(groups) > 0 {
		b.unvisited = len(b.clientsOf(groups[len(groups)-1]))
	}
}

// isBehind reports whether a client has possibly not received all broadcasts.
func (b *broadcasts) isBehind(c *Client) bool { return c.lastBroadcast != b.newest }

// catchUp enqueues the pending broadcasts for a client, and returns the number of frames. It may end the
// client.
func (b *broadcasts) catchUp(c *Client) (n int) {
	last := c.lastBroadcast
	c.lastBroadcast = b.newest // before end is called, which calls catchUp
	for _, p := range b.pending {
		if !isLater(p.number, last) || !p.includes(c, &p.entry) {
			continue
		}
		gap := p.entry.Gap != 0
		v := c.variant(p.entry)
		if p.frames[v] == nil {
			p.frames[v] = b.hub.encode(&p.entry, v == 1)
			p.frames[v].spread = gap
		}
		n++
		if !c.enqueue(p.frames[v], gap) { // with a gap, the client is woken later, see remove
			b.hub.end(c, ReasonSlow, false)
			break
		}
		if gap {
			p.waiting = append(p.waiting, c)
		}
	}
	return n
}

// remove removes the broadcasts up to a number, which all their clients have received.
func (b *broadcasts) remove(upTo uint32) {
	var waiting []*Client
	n := 0
	for ; n < len(b.pending) && !isLater(b.pending[n].number, upTo); n++ {
		waiting = append(waiting, b.pending[n].waiting...)
	}
	b.pending = append([]*broadcast(nil), b.pending[n:]...)
	b.hub.gaps.spread(waiting)
}

// close distributes everything immediately.
func (b *broadcasts) close() {
	for i := len(b.hub.clients) - 1; i >= 0; i-- { // backwards: catchUp may remove the client
		b.catchUp(b.hub.clients[i])
	}
	b.remove(b.newest)
	b.visiting, b.closed = nil, true
}
