package hub

import "iter"

// A StreamFeed is a hub for the entries of a log outside, which numbers them and keeps them for
// longer than the hub: they come with Load and Append. All methods are safe for concurrent use.
type StreamFeed struct{ *Hub }

// NewStreamFeed returns a hub without clients. Query is called for a client whose replay begins before what the
// hub holds. It must return at once and see to Query.Answer, which may take its time.
func NewStreamFeed(cfg Config, query func(*Query)) *StreamFeed {
	return &StreamFeed{newHub(cfg, query)}
}

// Load takes over the newest entries of the log, oldest first: all later than
// floor and up to newest, with the user that each is for, "" when only its id
// counts. It is called once, before the first Append; clients that are here already
// wait for it.
func (h *StreamFeed) Load(floor, newest ID, entries iter.Seq2[string, Entry]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.loaded, h.floor, h.pos = true, floor.point(), floor.point()
	for name, e := range entries {
		h.record(name, e)
	}
	h.pos = newest.point()
	for _, c := range h.clients {
		h.loadedFor(c)
	}
}

// loadedFor lets a client begin that came before the log was loaded.
func (h *Hub) loadedFor(c *Client) {
	r := c.replay
	if r == nil || !r.asked || r.query != nil {
		return
	}
	r.asked = false
	switch {
	case r.fresh:
		r.fail(h.pos, GapRedisReconnect) // what came between its opening and now is not known
	case r.gap != 0:
		r.fail(h.pos, r.gap)
	default:
		h.resume(c, r, r.cursor)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// record keeps an entry that nobody gets live.
func (h *Hub) record(name string, e Entry) {
	at := e.ID.point()
	h.overtake(at, false)
	switch {
	case name == "":
		h.keep(nil, at, &e, false)
	case name == h.cfg.BroadcastUser:
		h.keep(&h.everybody, at, &e, false)
	default:
		h.keep(h.owner(name), at, &e, false)
	}
	h.pos = at
}

// Append routes the next entry of the log, a message or a gap in its place, and
// returns to how many clients it went. With no user, only its id counts.
func (h *StreamFeed) Append(user string, e Entry) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	if user == "" {
		h.record(user, e)
		return 0
	}
	return h.add(user, e)
}

// Lose announces to every client that the log has let go of entries up to an id
// before they were read.
func (h *StreamFeed) Lose(upTo ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addForAll(Entry{ID: upTo, Gap: GapHistoryExpired})
}

// Reset announces to every client that the log went backwards and goes on behind
// newest: what was read before is no part of it.
func (h *StreamFeed) Reset(newest ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.handOut()
	for h.oldest != nil {
		h.drop(h.oldest)
	}
	at := newest.point()
	h.pos, h.floor, h.reset = at, at, &at
	h.generation++
	h.ahead = nil
	for _, c := range h.clients {
		h.resetFor(c)
	}
	e := Entry{ID: newest, Gap: GapFeedReset}
	h.tell("", true, e)
	h.broadcast(&e, true)
}

// resetFor makes what a client has yet to be replayed a gap.
func (h *Hub) resetFor(c *Client) {
	c.skip = point{}
	r := c.replay
	if r == nil {
		return
	}
	r.generation = h.generation
	switch {
	case r.live: // what is left is older than what is queued
		if r.cursor.before(r.until) {
			r.asked, r.query = false, nil
			r.fail(r.until, GapHistoryExpired)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.wake()
		}
	default:
		r.asked, r.query = false, nil
		r.fail(h.pos, GapFeedReset)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.wake()
	}
}
