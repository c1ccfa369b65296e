package hub

import "runtime"

// Whoever publishes a broadcast does not hand it to thousands of clients himself: the
// others' messages would wait meanwhile. It is handed out in parts, by a goroutine of
// its own. A client gets it before anything that comes later, whatever that is: with
// each look at a client, the hub first hands it what it has yet to hear.

// A broadcast is one that some clients have yet to be handed.
type broadcast struct {
	number uint64
	entry  Entry
	frames [2]*Frame // plain and named; nil: nobody has needed it
}

// maxBroadcasts is how many may be under way. A publisher who is faster than they can
// be handed out does it himself then.
const maxBroadcasts = 64

// broadcast sees to it that every client hears of e, and says whether anybody does.
func (h *Hub) broadcast(e *Entry) (n int) {
	part := h.cfg.FanOut
	if part <= 0 || h.closed || len(h.clients) <= part && len(h.underWay) == 0 {
		return h.route(h.clients, e)
	}
	if !h.anybodyHears(e) {
		return 0
	}
	e.time()
	h.broadcasts++
	h.underWay = append(h.underWay, &broadcast{number: h.broadcasts, entry: *e})
	switch {
	case len(h.underWay) > maxBroadcasts:
		h.catchUpAll()
	case !h.fanning:
		h.fanning = true
		h.goroutines.Go(h.fanOut)
	}
	return 1
}

// anybodyHears reports whether a message for everybody reaches anybody.
func (h *Hub) anybodyHears(e *Entry) bool {
	for _, c := range h.clients {
		if c.wants(e.Topic) && c.hears(e.ID) {
			return true
		}
	}
	return false
}

// fanOut hands out what is under way, until nothing is.
func (h *Hub) fanOut() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.underWay) > 0 && !h.closed {
		newest := h.broadcasts
		// From the end: clients that come meanwhile are there, and one that leaves is
		// replaced by one from there. Those have heard of it.
		for next := len(h.clients); next > 0 && !h.closed; {
			for part := h.cfg.FanOut; part > 0 && next > 0; part-- {
				if next--; next < len(h.clients) {
					h.catchUp(h.clients[next])
				}
			}
			h.shed()
			h.mu.Unlock()
			runtime.Gosched() // whoever waits for the lock
			h.mu.Lock()
		}
		h.heardUpTo(newest)
	}
	h.fanning = false
}

// catchUp hands a client what it has yet to hear.
func (h *Hub) catchUp(c *Client) {
	for _, b := range h.underWay {
		if b.number <= c.heard {
			continue
		}
		c.heard = b.number
		if !c.wants(b.entry.Topic) || !c.hears(b.entry.ID) {
			continue
		}
		i := c.variant(b.entry)
		if b.frames[i] == nil {
			b.frames[i] = h.encode(&b.entry, i == 1)
		}
		if !c.enqueue(b.frames[i], false) {
			c.heard = h.broadcasts // end asks again
			h.end(c, ErrSlow, false)
			return
		}
	}
}

func (h *Hub) catchUpAll() {
	for i := len(h.clients) - 1; i >= 0; i-- { // backwards: one may be taken out
		h.catchUp(h.clients[i])
	}
	h.shed()
	h.heardUpTo(h.broadcasts)
}

// heardUpTo forgets the broadcasts that everybody has heard.
func (h *Hub) heardUpTo(number uint64) {
	n := 0
	for n < len(h.underWay) && h.underWay[n].number <= number {
		n++
	}
	h.underWay = append([]*broadcast(nil), h.underWay[n:]...)
}
