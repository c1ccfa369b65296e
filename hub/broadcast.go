package hub

import "runtime"

// Whoever publishes a broadcast does not hand it to thousands of clients himself: the
// others' messages would wait meanwhile. It is handed out in parts, by a goroutine of
// its own. A client gets it before anything that comes later, whatever that is: with
// each look at a client, the hub first hands it what it has yet to hear. A gap that
// concerns all clients is a broadcast, too.

// A broadcast is one that some clients have yet to be handed.
type broadcast struct {
	number uint64
	entry  Entry
	forAll bool      // whatever their topics
	frames [2]*Frame // plain and named; nil: nobody has needed it
}

// maxBroadcasts is how many may be under way. A publisher who is faster than they can
// be handed out hands out himself then: see makeRoom.
const maxBroadcasts = 64

// broadcast sees to it that every client that wants e, forAll whatever their topics, is
// handed it. For a message, n is how many these are; 1 stands for any number if it is
// handed out in parts.
func (h *Hub) broadcast(e *Entry, forAll bool) (n int) {
	part := h.cfg.FanOut
	if h.closed || len(h.clients) <= part && len(h.underWay) == 0 {
		if e.Gap != 0 {
			h.handAll(e, forAll)
			return 0
		}
		return h.route(h.clients, e)
	}
	if !forAll && !h.audience.has(e.Topic) {
		return 0
	}
	e.time()
	h.broadcasts++
	h.underWay = append(h.underWay, &broadcast{number: h.broadcasts, entry: *e, forAll: forAll})
	if !h.fanning {
		h.fanning = true
		h.goroutines.Go(h.fanOut)
	}
	return 1
}

// fanOut hands out what is under way, until nothing is.
func (h *Hub) fanOut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handOut()
	h.fanning = false
}

// handOut hands out what is under way. h.mu is held, but not all the time.
func (h *Hub) handOut() {
	for len(h.underWay) > 0 && !h.closed {
		h.handOutPart()
		h.yield()
	}
}

// makeRoom is called before a broadcast is numbered: it hands out others if as many as
// may be are under way. h.mu is held, but not all the time.
func (h *Hub) makeRoom() {
	for len(h.underWay) >= maxBroadcasts && !h.closed {
		h.handOutPart()
		h.yield()
	}
}

// yield gives h.mu to others that wait for it.
func (h *Hub) yield() {
	h.mu.Unlock()
	runtime.Gosched()
	h.mu.Lock()
}

// handOutPart hands what is under way to the next Config.FanOut clients, or to fewer when
// there are several broadcasts.
func (h *Hub) handOutPart() {
	// From the end: clients that come meanwhile are there, and one that leaves is
	// replaced by one from there. Those have heard of it.
	if h.unvisited == 0 {
		h.round, h.unvisited = h.broadcasts, len(h.clients)
	}
	for frames := h.cfg.FanOut; frames > 0 && h.unvisited > 0; {
		frames--
		if h.unvisited--; h.unvisited < len(h.clients) {
			frames -= h.catchUp(h.clients[h.unvisited])
		}
	}
	h.shed()
	if h.unvisited == 0 {
		h.heardUpTo(h.round)
	}
}

// catchUp hands a client what it has yet to hear, and returns how many frames that were.
func (h *Hub) catchUp(c *Client) (n int) {
	for _, b := range h.underWay {
		if b.number <= c.heard {
			continue
		}
		c.heard = b.number
		if !b.forAll && !c.wants(b.entry.Topic) || !c.hears(b.entry.ID) {
			continue
		}
		i := c.variant(b.entry)
		if b.frames[i] == nil {
			b.frames[i] = h.encode(&b.entry, i == 1)
		}
		n++
		if !c.enqueue(b.frames[i], b.entry.Gap != 0) { // a gap is spread once all have it
			c.heard = h.broadcasts // end asks again
			h.end(c, ReasonSlow, false)
			break
		}
	}
	return n
}

// heardUpTo forgets the broadcasts that everybody has heard.
func (h *Hub) heardUpTo(number uint64) {
	n, gap := 0, false
	for n < len(h.underWay) && h.underWay[n].number <= number {
		gap = gap || h.underWay[n].entry.Gap != 0
		n++
	}
	h.underWay = append([]*broadcast(nil), h.underWay[n:]...)
	if gap {
		h.spreadGap()
	}
}
