package hub

import (
	"time"
)

// A replay is what a client that came back has yet to get before its queue's
// turn. It reads the history bit by bit, at the pace of the client's writer: what
// the history lets go of before it was read becomes a gap. All fields are guarded
// by Hub.mu.
type replay struct {
	cursor point // the client has everything up to here
	// Once live, what is later than until comes through the queue; before, nothing
	// does. Without a log that is so from the start, because the history is short.
	// With a log it is so at the end, because a replay may take long; or, when what
	// is kept is shorter than that, once the log has answered.
	live  bool
	until point
	gap   Gap // to be announced next, with the cursor as its id
	// generation is Hub.generation, unless the log was reset after the client had ended.
	generation uint64
	told       bool // the log has answered all that was asked

	// Waiting for the log.
	asked   bool   // and not answered
	query   *Query // nil: the log is yet to be loaded
	unsent  bool   // the query is
	fresh   bool   // nothing to resume: came before the log was loaded
	ahead   bool   // the cursor is an id that this hub had not seen when it asked
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

// Gone reports whether nobody waits for the answer any more.
func (q *Query) Gone() bool {
	h := q.client.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	r := q.client.replay
	return r == nil || r.query != q || q.client.index < 0
}

// Answer is the reply to a Query; it may be given from any goroutine, once, and need
// not be once the query is Gone. The entries are those after Query.After and up to
// covered, in order; if covered is before Query.UpTo, the hub asks again for the rest.
// A gap says why there is no answer: GapHistoryExpired or GapUnknownID.
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
	case gap != 0 && r.ahead && (gap == GapHistoryExpired || !h.pos.before(r.cursor)):
		// A gap would have the client's own id or an older one. If the hub has got there meanwhile, it checks the
		// id itself; otherwise it will find what the log no longer has when it gets there.
	case gap == GapUnknownID && !r.live:
		r.fail(h.pos, gap)
	case gap != 0:
		r.fail(h.floor, GapHistoryExpired)
	default:
		r.read, r.covered = entries, covered.point()
		r.told = !covered.point().before(q.UpTo.point())
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
	r.read, r.covered, r.ahead = nil, point{}, false
}

// goLive lets the queue have what comes from now on.
func (c *Client) goLive(r *replay) {
	r.live, r.until = true, later(c.hub.pos, r.cursor)
	c.skip = r.until
	if c.index >= 0 {
		c.hub.audience.add(c)
	}
	if c.hub.pos.before(c.skip) { // another hub was quicker
		c.hub.ahead = append(c.hub.ahead, c)
	}
}

// overtake looks, before the sequence moves on to a place, for clients whose id is
// not later than that. If no entry of the log has the id, the log has lost its
// tail before this hub saw it: what came instead was skipped for the client. When
// the place is that of a loss, that is what the client hears of.
func (h *Hub) overtake(at point, loss bool) {
	if len(h.ahead) == 0 {
		return
	}
	still := h.ahead[:0]
	for _, c := range h.ahead {
		switch {
		case at.before(c.skip):
			still = append(still, c)
		case c.index < 0, c.skip == at, loss:
		default:
			h.hand(c, h.encode(&Entry{ID: h.id(at.pred()), Gap: GapFeedReset}, false), false)
		}
	}
	clear(h.ahead[len(still):])
	h.ahead = still
}

// hears reports whether an entry goes into the client's queue: not while it has
// yet to get older ones, nor when it had this one elsewhere.
func (c *Client) hears(id ID) bool {
	return (c.replay == nil || c.replay.live) && (c.skip == point{} || c.skip.before(id.point()))
}

// begin decides where a client starts and returns Client.Opening. A stream that resumes opens with
// the client's own id, whatever the hub knows of it: the first other id comes with a gap, with a message, or
// once nothing is missing. A connection that breaks before that is resumed from the same id.
func (h *Hub) begin(c *Client, resume string) (opening ID) {
	id, known := parseID(resume)
	known = known && id.Boot == h.boot
	isThere := resume == "" || known && id.point() == h.pos && (h.reset == nil || *h.reset != h.pos)
	switch {
	case h.isLog() && !h.loaded:
		c.replay = &replay{generation: h.generation, asked: true}
		switch {
		case resume == "":
			c.replay.fresh = true
			return UnknownID
		case !known:
			c.replay.gap = GapUnknownID
			return UnknownID
		}
		c.replay.cursor = id.point()
		return id
	case isThere:
		return h.id(h.pos)
	}
	r := &replay{generation: h.generation}
	if known {
		h.resume(c, r, id.point())
	} else {
		id = UnknownID
		r.fail(h.pos, GapUnknownID)
	}
	c.replay = r
	if !h.isLog() {
		c.goLive(r)
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
	r.asked, r.unsent, r.told = true, true, false
	r.ahead = h.pos.before(r.cursor)
	upTo := h.floor
	if r.live && r.until.before(upTo) { // the queue has what is later
		upTo = r.until
	}
	r.query = &Query{User: c.user.name, After: h.id(r.cursor), UpTo: h.id(upTo), client: c}
}

func (h *Hub) id(p point) ID { return ID{h.boot, p.ms, p.seq} }

// replayed takes the next frames of the replay. Without any, the client waits for
// the log (again is false), or the queue may have its turn.
func (c *Client) replayed() (frames []*Frame, again bool) {
	h := c.hub
	h.mu.Lock()
	entries, query, again := c.nextEntries()
	for _, e := range entries {
		var f *Frame // nil: to be made
		if e.kept != nil {
			f = e.kept.frame(c.variant(e.Entry))
		}
		frames = append(frames, f)
	}
	h.mu.Unlock()
	if query != nil {
		h.query(query)
		return nil, true
	}
	made := false
	for i, e := range entries {
		if frames[i] == nil {
			frames[i] = &Frame{Wire: h.cfg.Encode(nil, e.Entry, c.variant(e.Entry) == 1), ID: e.ID, Gap: e.Gap, Replayed: true}
			made = made || e.kept != nil
		}
	}
	if made {
		c.share(entries, frames)
	}
	if len(frames) > 0 && !c.hold(frames) {
		return nil, true // it has ended
	}
	return frames, again
}

// variant is how an entry is encoded for the client: 1 with the topic in the event's
// name, else 0.
func (c *Client) variant(e Entry) int {
	if c.named && e.Gap == 0 {
		return 1
	}
	return 0
}

// share lets others who come back have the frames, too.
func (c *Client) share(entries []replayedEntry, frames []*Frame) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	for i, e := range entries {
		if e.kept != nil {
			e.kept.share(c.variant(e.Entry), frames[i])
		}
	}
}

// A replayed entry is kept, unless the log has brought it.
type replayedEntry struct {
	Entry
	kept *kept
}

// hold counts frames that were not in the queue as taken. They are no part of what
// the queues hold together: it is the history that bounds them.
func (c *Client) hold(frames []*Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.replaying {
		return false
	}
	for _, f := range frames {
		c.hub.count.enqueued(f)
	}
	// The queue waits for the replay. Whoever takes that is no slow reader.
	if c.over != nil && !c.over.since.IsZero() {
		c.over.since = time.Now()
	}
	return true
}

// nextEntries is one step of the replay: entries to write, or a query to send;
// again says that there is more to do at once. h.mu is held.
func (c *Client) nextEntries() (entries []replayedEntry, query *Query, again bool) {
	h, r := c.hub, c.replay
	if r == nil {
		return nil, nil, true
	}
	if r.generation != h.generation {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.giveUpReplay()
		return nil, nil, true
	}
	if r.asked {
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
		return []replayedEntry{{e, nil}}, nil, true
	}
	if r.read != nil || r.cursor.before(r.covered) {
		return c.fromLog(r), nil, true
	}
	if floor := h.completeFrom(c.user); r.cursor.before(floor) && !(r.live && r.cursor == r.until) {
		switch {
		case !h.isLog():
			r.fail(floor, GapHistoryExpired)
		case c.index < 0: // the log has it: the browser keeps its id, and the next hub goes on from there
			c.mu.Lock()
			defer c.mu.Unlock()
			c.giveUpReplay()
		default:
			// A window that is shorter than a scan takes would always be one step ahead.
			if r.told && !r.live {
				c.goLive(r)
			}
			h.ask(c, r)
		}
		return nil, nil, true
	}
	if r.ahead && !h.pos.before(r.cursor) {
		// This hub has got there meanwhile, and knows better than the log that was asked.
		if r.ahead = false; !h.isKnown(r.cursor) {
			r.fail(h.pos, GapUnknownID)
			return nil, nil, true
		}
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
func (c *Client) fromLog(r *replay) (batch []replayedEntry) {
	for size := 0; len(r.read) > 0 && len(batch) < replayBatch && size < replayBytes; r.read = r.read[1:] {
		e := r.read[0]
		r.cursor = e.ID.point()
		if c.wants(e.Topic) {
			batch = append(batch, replayedEntry{e, nil})
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
func (c *Client) fromHistory(r *replay) (batch []replayedEntry) {
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
			batch = append(batch, replayedEntry{Entry{ID: h.id(k.at), Topic: k.topic, Payload: k.payload, Gap: k.gap}, k})
			size += len(k.payload)
		}
	}
	if all {
		r.cursor = r.until
	}
	return batch
}

// giveUpReplay lets go of a replay that cannot go on because the client has ended: one
// that has ended neither asks the log nor accepts an answer, because its user may be
// unknown to the hub by then. What is queued is later than what is missing, so it goes
// as well. c.hub.mu and c.mu are held.
func (c *Client) giveUpReplay() {
	c.replay = nil
	c.replaying, c.lost = false, true
	c.discard()
}

// sleep ends the consumer's turn.
func (c *Client) sleep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.woken = false
}
