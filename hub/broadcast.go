package hub

// The goroutine that publishes a broadcast does not hand it to thousands of clients: other
// messages would wait meanwhile. Another goroutine hands it out in parts. A client gets it
// before anything that comes later: whenever the hub does anything with a client, it first
// hands it the broadcasts that it has yet to be handed. A gap that concerns all clients is a
// broadcast, too.

// broadcasts are those that some clients have yet to be handed. All fields are guarded by Hub.mu.
type broadcasts struct {
	hub       *Hub
	pending   []*broadcast
	newest    uint32 // number of the newest broadcast; after the highest number comes 0
	round     uint32 // the newest of those that are being handed out
	unvisited int    // clients that this round has yet to come to: the first ones
	running   bool   // run is at work
	closed    bool
}

type broadcast struct {
	number    uint32
	entry     Entry
	allTopics bool
	frames    [2]*Frame // plain and named; nil: not encoded yet
}

// maxBroadcasts is how many may be pending. A publisher that is faster than they can
// be handed out hands out some itself then: see makeRoom.
const maxBroadcasts = 64

// isLater compares the numbers of broadcasts, of which only the newest few are ever compared.
func isLater(a, b uint32) bool { return int32(a-b) > 0 }

// add sees to it that all clients that want e, with allTopics whatever their topics, are
// handed it. For a message, n is how many these are; 1 stands for any number if it is
// handed out in parts.
func (b *broadcasts) add(e *Entry, allTopics bool) (n int) {
	h := b.hub
	if b.closed || len(h.clients) <= h.cfg.FanOut && len(b.pending) == 0 {
		if e.Gap != 0 {
			b.handGapToAll(e, allTopics)
			return 0
		}
		return h.route(h.clients, e)
	}
	if !allTopics && !h.audience.has(e.Topic) {
		return 0
	}
	e.time()
	b.newest++
	b.pending = append(b.pending, &broadcast{number: b.newest, entry: *e, allTopics: allTopics})
	if !b.running {
		b.running = true
		h.goroutines.Go(b.run)
	}
	return 1
}

// handGapToAll enqueues a gap for all clients, and wakes those that receive nothing else over a time.
func (b *broadcasts) handGapToAll(e *Entry, allTopics bool) {
	h := b.hub
	f := h.encode(e, false)
	for i := len(h.clients) - 1; i >= 0; i-- { // backwards: hand may take the client out
		if c := h.clients[i]; c.accepts(e.ID) && (allTopics || c.wants(e.Topic)) {
			h.hand(c, f, true)
		}
	}
	h.shed()
	h.gaps.spread(h.clients)
}

// run hands out broadcasts until none is pending.
func (b *broadcasts) run() {
	b.hub.mu.Lock()
	defer b.hub.mu.Unlock()
	b.handOut()
	b.running = false
}

// handOut hands out what is pending. Hub.mu is held, but not all the time.
func (b *broadcasts) handOut() {
	for len(b.pending) > 0 && !b.closed {
		b.handOutPart()
		yield(&b.hub.mu)
	}
}

// makeRoom is called before a broadcast is numbered: it hands out others if as many as
// are allowed are pending. Hub.mu is held, but not all the time.
func (b *broadcasts) makeRoom() {
	for len(b.pending) >= maxBroadcasts && !b.closed {
		b.handOutPart()
		yield(&b.hub.mu)
	}
}

// handOutPart hands what is pending to the next Config.FanOut clients, or to fewer if
// there are several broadcasts.
func (b *broadcasts) handOutPart() {
	h := b.hub
	// From the end: clients that come meanwhile are there, and one that leaves is
	// replaced by one from there. Those have been handed it.
	if b.unvisited == 0 {
		b.round, b.unvisited = b.newest, len(h.clients)
	}
	for frames := h.cfg.FanOut; frames > 0 && b.unvisited > 0; {
		frames--
		if b.unvisited--; b.unvisited < len(h.clients) {
			frames -= b.catchUp(h.clients[b.unvisited])
		}
	}
	h.shed()
	if b.unvisited == 0 {
		b.remove(b.round)
	}
}

// isBehind reports whether a client has yet to be handed any broadcast.
func (b *broadcasts) isBehind(c *Client) bool { return c.lastBroadcast != b.newest }

// catchUp hands a client the broadcasts that it has yet to be handed, and returns how many frames
// that were. It may end the client.
func (b *broadcasts) catchUp(c *Client) (n int) {
	for _, p := range b.pending {
		if !isLater(p.number, c.lastBroadcast) {
			continue
		}
		c.lastBroadcast = p.number
		if !p.allTopics && !c.wants(p.entry.Topic) || !c.accepts(p.entry.ID) {
			continue
		}
		v := c.variant(p.entry)
		if p.frames[v] == nil {
			p.frames[v] = b.hub.encode(&p.entry, v == 1)
		}
		n++
		if !c.enqueue(p.frames[v], p.entry.Gap != 0) { // a gap is spread once all have it
			c.lastBroadcast = b.newest // end asks again
			b.hub.end(c, ReasonSlow, false)
			break
		}
	}
	return n
}

// remove removes the broadcasts that all clients have been handed.
func (b *broadcasts) remove(upTo uint32) {
	n, gap := 0, false
	for n < len(b.pending) && !isLater(b.pending[n].number, upTo) {
		gap = gap || b.pending[n].entry.Gap != 0
		n++
	}
	b.pending = append([]*broadcast(nil), b.pending[n:]...)
	if gap {
		b.hub.gaps.spread(b.hub.clients)
	}
}

// close hands out everything now.
func (b *broadcasts) close() {
	for i := len(b.hub.clients) - 1; i >= 0; i-- { // backwards: one may be taken out
		b.catchUp(b.hub.clients[i])
	}
	b.remove(b.newest)
	b.closed = true
}
