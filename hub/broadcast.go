package hub

import "slices"

// The goroutine that publishes a broadcast does not enqueue it for thousands of clients, because other
// messages would wait meanwhile. Another goroutine distributes it in parts. Every client receives a
// broadcast before any later entry: before the hub does anything with a client, it enqueues the
// client's pending broadcasts. A gap that concerns all clients is a broadcast, too.

// A message to a large group is distributed in the same way, to the clients of its members.

// broadcasts are the broadcasts that have not been enqueued for all their clients. All fields are guarded by Hub.mu.
type broadcasts struct {
	hub       *Hub
	pending   []*broadcast
	newest    uint64   // number of the newest broadcast
	round     uint64   // number of the newest broadcast of the current round
	visiting  []*owner // the groups that this round has not visited completely; nil stands for all clients
	unvisited int      // how many clients, the first ones, of the last of these were not visited
	running   bool     // run is active
	closed    bool
}

type broadcast struct {
	number    uint64
	entry     Entry
	group     *owner // nil: for all clients
	allTopics bool
	frames    [2]*Frame // plain and named; nil: not encoded yet
}

// concerns reports whether a client receives the broadcast.
func (p *broadcast) concerns(c *Client) bool {
	return (p.group == nil || c.isMember(p.group)) && (p.allTopics || c.wants(p.entry.Topic)) && c.accepts(p.entry.ID)
}

// maxBroadcasts is the maximum number of pending broadcasts. A publisher that exceeds it distributes
// some itself: see makeRoom.
const maxBroadcasts = 64

// clientsOf returns the clients of a group, or all clients for nil.
func (b *broadcasts) clientsOf(group *owner) []*Client {
	if group == nil {
		return b.hub.clients
	}
	return group.clients
}

// add enqueues e for all clients, or for those of a large group, whose topic filter accepts it, or for all of these with
// allTopics, immediately or in parts. For a message, n is the number of these clients; if it is distributed in parts, n
// is 1 for any number.
func (b *broadcasts) add(e *Entry, group *owner, allTopics bool) (n int) {
	h := b.hub
	if b.closed || len(b.clientsOf(group)) <= h.cfg.FanOut && len(b.pending) == 0 {
		if e.Gap != 0 && group == nil {
			b.addGap(e, allTopics)
			return 0
		}
		return h.route(b.clientsOf(group), e)
	}
	if !allTopics && !h.audience.has(e.Topic) {
		return 0
	}
	e.time()
	b.newest++
	b.pending = append(b.pending, &broadcast{number: b.newest, entry: *e, group: group, allTopics: allTopics})
	if !b.running {
		b.running = true
		h.goroutines.Go(b.run)
	}
	return 1
}

// addGap enqueues a gap for all clients, and wakes those that receive nothing else gradually.
func (b *broadcasts) addGap(e *Entry, allTopics bool) {
	h := b.hub
	f := h.encode(e, false)
	f.spread = true
	for i := len(h.clients) - 1; i >= 0; i-- { // backwards: enqueue may remove the client
		if c := h.clients[i]; c.accepts(e.ID) && (allTopics || c.wants(e.Topic)) {
			h.enqueue(c, f, true)
		}
	}
	h.shed()
	h.gaps.spread(h.clients)
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

// makeRoom is called before a broadcast is numbered: it distributes others if maxBroadcasts are pending.
// Hub.mu is held, but released between parts.
func (b *broadcasts) makeRoom() {
	for len(b.pending) >= maxBroadcasts && !b.closed {
		b.distributePart()
		yield(&b.hub.mu)
	}
}

// distributePart enqueues the pending broadcasts for the next Config.FanOut clients, or for fewer if several
// are pending.
func (b *broadcasts) distributePart() {
	h := b.hub
	if len(b.visiting) == 0 {
		b.round, b.visiting = b.newest, b.groups()
		b.unvisited = len(b.clientsOf(b.visiting[len(b.visiting)-1]))
	}
	for frames := h.cfg.FanOut; frames > 0 && len(b.visiting) > 0; {
		last := len(b.visiting) - 1
		if b.unvisited == 0 {
			if b.visiting = b.visiting[:last]; last > 0 {
				b.unvisited = len(b.clientsOf(b.visiting[last-1]))
			}
			continue
		}
		frames--
		// Backwards: new clients are appended, and a client that ends is replaced by the last one. These have
		// already received the broadcasts.
		clients := b.clientsOf(b.visiting[last])
		if b.unvisited--; b.unvisited < len(clients) {
			frames -= b.catchUp(clients[b.unvisited])
		}
	}
	h.shed()
	if len(b.visiting) == 0 {
		b.remove(b.round)
	}
}

// groups returns the groups of the pending broadcasts, each once, or only nil if one is for all clients.
func (b *broadcasts) groups() (groups []*owner) {
	for _, p := range b.pending {
		if p.group == nil {
			return []*owner{nil}
		}
		if !slices.Contains(groups, p.group) {
			groups = append(groups, p.group)
		}
	}
	return groups
}

// isBehind reports whether a client has not received all broadcasts.
func (b *broadcasts) isBehind(c *Client) bool { return c.lastBroadcast != b.newest }

// catchUp enqueues the pending broadcasts for a client, and returns the number of frames. It may end the
// client.
func (b *broadcasts) catchUp(c *Client) (n int) {
	last := c.lastBroadcast
	c.lastBroadcast = b.newest // before end is called, which calls catchUp
	for _, p := range b.pending {
		if p.number <= last || !p.concerns(c) {
			continue
		}
		v := c.variant(p.entry)
		if p.frames[v] == nil {
			p.frames[v] = b.hub.encode(&p.entry, v == 1)
			p.frames[v].spread = p.entry.Gap != 0
		}
		n++
		if !c.enqueue(p.frames[v], p.entry.Gap != 0) { // with a gap, the client is woken later, see remove
			b.hub.end(c, ReasonSlow, false)
			break
		}
	}
	return n
}

// remove removes the broadcasts up to a number, which all their clients have received.
func (b *broadcasts) remove(upTo uint64) {
	n, gap := 0, false
	for n < len(b.pending) && b.pending[n].number <= upTo {
		gap = gap || b.pending[n].entry.Gap != 0
		n++
	}
	b.pending = append([]*broadcast(nil), b.pending[n:]...)
	if gap {
		b.hub.gaps.spread(b.hub.clients)
	}
}

// close distributes everything immediately.
func (b *broadcasts) close() {
	for i := len(b.hub.clients) - 1; i >= 0; i-- { // backwards: catchUp may remove the client
		b.catchUp(b.hub.clients[i])
	}
	b.remove(b.newest)
	b.visiting, b.closed = nil, true
}
