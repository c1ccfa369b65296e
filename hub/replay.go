package hub

// A replay is what a client that came back has yet to get before its queue's
// turn. It reads the history bit by bit, at the pace of the client's writer: what
// the history lets go of before it was read becomes a gap. All fields are guarded
// by Hub.mu.
type replay struct {
	cursor point // the client has everything up to here
	// Once live, what is later than until comes through the queue; before, nothing
	// does. Without a log that is so from the start, because the history is short.
	// With a log it is so at the end, because a replay may take long.
	live  bool
	until point
	gap   Gap // to be announced next, with the cursor as its id

	// Waiting for the log.
	asked   bool   // and not answered
	query   *Query // nil: the log is yet to be loaded
	unsent  bool   // the query is
	fresh   bool   // nothing to resume: came before the log was loaded
	read    []Entry
	covered point // read has all up to here
}

// replayBatch and replayBytes bound what one Take encodes of a replay.
const (
	replayBatch = 64
	replayBytes = 256 << 10
)

// A Query asks the log for entries that the hub does not hold: those of User, and
// those for everybody, after After and up to UpTo. With After beyond UpTo it asks
// only whether After is a place of the log.
type Query struct {
	User        string
	After, UpTo ID

	client *Client
}

// Answer is the reply to a Query; it may be given from any goroutine, once. The
// entries are those after Query.After and up to covered, in order; if covered is
// before Query.UpTo, the hub asks again for the rest. A gap says why there is no
// answer: GapHistoryExpired or GapUnknownID.
func (q *Query) Answer(entries []Entry, covered ID, gap Gap) {
	c := q.client
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	r := c.replay
	if r == nil || r.query != q { // the client has left, or the log was reset
		return
	}
	r.asked, r.query = false, nil
	switch {
	case gap == GapUnknownID && !r.live:
		r.fail(h.pos, gap)
	case gap != 0:
		r.fail(h.floor, GapHistoryExpired)
	default:
		r.read, r.covered = entries, covered.point()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// fail announces a gap from the cursor to a later place.
func (r *replay) fail(to point, gap Gap) {
	if r.live && r.until.before(to) {
		to = r.until // the queue has what is later
	}
	r.cursor, r.gap = to, gap
	r.read = nil
}

// goLive lets the queue have what comes from now on.
func (c *Client) goLive(r *replay) {
	r.live, r.until = true, later(c.hub.pos, r.cursor)
	c.skip = r.until // a cursor ahead of the hub: another one was quicker
}

// hears reports whether an entry goes into the client's queue: not while it has
// yet to get older ones, nor when it had this one elsewhere.
func (c *Client) hears(id ID) bool {
	return (c.replay == nil || c.replay.live) && (c.skip == point{} || c.skip.before(id.point()))
}

// begin decides where a client starts, and returns the id that its stream opens
// with: from there on it is complete. With an id that cannot be resumed from, the
// opening is one that nobody can resume from either: a browser that reads it, and
// not the gap behind it, does not come back believing that it is complete.
func (h *Hub) begin(c *Client, resume string) (opening ID) {
	id, known := parseID(resume)
	known = known && id.Boot == h.boot
	r := new(replay)
	switch {
	case h.isLog() && !h.loaded:
		r.asked = true
		switch {
		case resume == "":
			r.fresh = true
		case !known:
			r.gap = GapUnknownID
		default:
			r.cursor = id.point()
			c.replay = r
			return id
		}
		c.replay = r
		return h.nowhere()
	case resume == "" || known && id.point() == h.pos && (h.reset == nil || *h.reset != h.pos):
		return h.id(h.pos)
	case !known:
		r.fail(h.pos, GapUnknownID)
	default:
		h.resume(c, r, id.point())
	}
	c.replay = r
	if !h.isLog() {
		c.goLive(r)
	}
	if r.gap == GapUnknownID {
		return h.nowhere()
	}
	return id
}

// resume sets a replay up that begins at a place of this sequence.
func (h *Hub) resume(c *Client, r *replay, at point) {
	r.cursor = at
	switch {
	case !h.isLog():
		if h.pos.before(at) {
			r.fail(h.pos, GapUnknownID)
		}
	case h.reset != nil && !h.reset.before(at):
		// At the very place of the reset too: the stream may have been told of it
		// before the reset, and then does not know of what was lost.
		r.fail(*h.reset, GapFeedReset)
	case h.pos.before(at), at.before(h.floor):
		h.ask(c, r)
	case !h.isKnown(at):
		r.fail(h.pos, GapUnknownID)
	}
}

// ask makes a query; the caller sends it once no lock is held.
func (h *Hub) ask(c *Client, r *replay) {
	r.asked, r.unsent = true, true
	r.query = &Query{User: c.user.name, After: h.id(r.cursor), UpTo: h.id(h.floor), client: c}
}

// nowhere is an id that no stream can be resumed from, here or elsewhere.
func (h *Hub) nowhere() ID { return ID{Boot: h.void, Seq: h.pos.seq} }

func (h *Hub) id(p point) ID { return ID{h.boot, p.ms, p.seq} }

// replayed takes the next frames of the replay. Without any, the client waits for
// the log (again is false), or the queue may have its turn.
func (c *Client) replayed() (frames []*Frame, again bool) {
	h := c.hub
	h.mu.Lock()
	entries, query, again := c.nextEntries()
	h.mu.Unlock()
	if query != nil {
		h.cfg.Older(query)
		return nil, true
	}
	size := 0
	for _, e := range entries {
		f := &Frame{Wire: h.cfg.Encode(nil, e, c.named && e.Gap == 0), ID: e.ID, Gap: e.Gap, Replayed: true}
		frames = append(frames, f)
		size += len(f.Wire)
	}
	if len(frames) > 0 && !c.hold(frames, size) {
		return nil, true // it has ended
	}
	return frames, again
}

// hold counts frames that were not in the queue as taken.
func (c *Client) hold(frames []*Frame, bytes int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.replaying {
		return false
	}
	for _, f := range frames {
		c.hub.count.enqueued(f)
	}
	c.flight += bytes
	return true
}

// nextEntries is one step of the replay: entries to write, or a query to send;
// again says that there is more to do at once. h.mu is held.
func (c *Client) nextEntries() (entries []Entry, query *Query, again bool) {
	h, r := c.hub, c.replay
	if r == nil {
		return nil, nil, true
	}
	if r.asked {
		if c.index < 0 {
			c.giveUpReplay()
			return nil, nil, true
		}
		if r.unsent {
			r.unsent = false
			return nil, r.query, true
		}
		c.sleep()
		return nil, nil, false
	}
	if r.gap != 0 {
		e := Entry{ID: h.id(r.cursor), Gap: r.gap}
		r.gap = 0
		return []Entry{e}, nil, true
	}
	if r.read != nil || r.cursor.before(r.covered) {
		return c.fromLog(r), nil, true
	}
	if floor := h.completeFrom(c.user); r.cursor.before(floor) && !(r.live && r.cursor == r.until) {
		if h.isLog() && c.index >= 0 {
			h.ask(c, r)
		} else {
			r.fail(floor, GapHistoryExpired)
		}
		return nil, nil, true
	}
	if !r.live {
		r.until = later(h.pos, r.cursor)
	}
	entries = c.fromHistory(r)
	if !r.live && r.cursor == r.until {
		c.goLive(r)
	}
	if r.live && r.cursor == r.until && len(entries) == 0 {
		c.replay = nil
		c.mu.Lock()
		c.replaying = false
		c.mu.Unlock()
	}
	return entries, nil, true
}

// fromLog takes a batch of what the log has answered.
func (c *Client) fromLog(r *replay) (batch []Entry) {
	for size := 0; len(r.read) > 0 && len(batch) < replayBatch && size < replayBytes; r.read = r.read[1:] {
		e := r.read[0]
		r.cursor = e.ID.point()
		if c.wants(e.Topic) {
			batch = append(batch, e)
			size += len(e.Payload)
		}
	}
	if len(r.read) == 0 {
		r.read, r.cursor = nil, later(r.cursor, r.covered)
		r.covered = point{}
	}
	return batch
}

// fromHistory takes a batch of what the hub holds.
func (c *Client) fromHistory(r *replay) (batch []Entry) {
	h := c.hub
	const look = 16 * replayBatch // a filter may let none of them through
	list, all := h.between(nil, c.user, r.cursor, r.until, look)
	size := 0
	for _, k := range list {
		if len(batch) == replayBatch || size >= replayBytes {
			return batch
		}
		r.cursor = k.at
		if k.forAll || c.wants(k.topic) {
			batch = append(batch, Entry{ID: h.id(k.at), Topic: k.topic, Payload: k.payload, Gap: k.gap})
			size += len(k.payload)
		}
	}
	if all {
		r.cursor = r.until
	}
	return batch
}

// giveUpReplay lets go of a replay that cannot go on because the client has ended.
// What is queued is later than what is missing, so it goes as well.
func (c *Client) giveUpReplay() {
	c.replay = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replaying, c.lost = false, true
	c.discard()
}

// sleep ends the consumer's turn.
func (c *Client) sleep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken = false
}
