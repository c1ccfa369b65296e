package hub

import (
	"iter"
	"time"
)

// A window is the history of a StreamFeed: the newest entries of a log, of all users. Older entries are in the
// log.
type window struct {
	entries
	seq    *sequence
	owners *owners
	query  func(*Query)

	loaded   bool
	nodes    deque[*entryNode] // of all users
	lowWater ID                // all later entries of the log are in nodes
	reset    *ID               // the newest id after the last reset; nil: no reset so far
}

func newWindow(h *Hub, query func(*Query)) *window {
	return &window{entries: entries{limit: h.cfg.HistoryBytes}, seq: &h.seq, owners: &h.owners, query: query}
}

func (w *window) close() {}

func (w *window) begin(c *Client, resume string) (opening ID) {
	id, known := parseID(resume)
	switch {
	case !w.loaded:
		return w.waitForLoad(c, resume, id, known)
	case resume == "", known && id == w.seq.newest && !w.isReset(id):
		return w.seq.newest
	}
	r := c.startReplay()
	if !known {
		r.fail(w.seq.newest, GapUnknownID)
		return UnknownID
	}
	w.resume(r, id)
	return id
}

func (w *window) waitForLoad(c *Client, resume string, id ID, known bool) (opening ID) {
	r := c.startReplay()
	r.state = replayUnloaded
	switch {
	case resume == "":
		r.gap = GapRedisReconnect // entries between the opening and the load are unknown
		return UnknownID
	case !known:
		r.gap = GapUnknownID
		return UnknownID
	}
	r.cursor = id
	return id
}

// load is called before the first entries are added.
func (w *window) load(after ID) { w.loaded, w.lowWater, w.seq.newest = true, after, after }

// beginLoaded starts a replay that waited for the load.
func (w *window) beginLoaded(r *replay) {
	switch {
	case r.state != replayUnloaded:
		return
	case r.gap != 0:
		r.fail(w.seq.newest, r.gap)
	default:
		w.resume(r, r.cursor)
	}
	r.client.notify()
}

// resume starts a replay at an id of the log.
func (w *window) resume(r *replay, id ID) {
	r.state, r.cursor = replayHistory, id
	switch {
	case w.isReset(id):
		r.fail(*w.reset, GapFeedReset)
	case w.seq.newest.before(id), id.before(w.lowWater):
		w.ask(r)
	case !w.knows(id):
		r.fail(w.seq.newest, GapUnknownID)
	}
}

// isReset reports whether an id is from before a reset. This includes the id of the reset itself: a stream may
// have received it before the reset, and then not the gap.
func (w *window) isReset(id ID) bool { return w.reset != nil && !w.reset.before(id) }

// knows reports whether an id, which is not before the low-water mark, is a valid position of the log: an entry,
// or the position just before one.
func (w *window) knows(id ID) bool {
	if id == w.lowWater || id == w.seq.newest {
		return true
	}
	list := w.nodes.all()
	i, found := search(list, id)
	return found || i < len(list) && list[i].id.Previous() == id
}

// ask prepares a query of a replay. The client's consumer sends it later, without a lock.
func (w *window) ask(r *replay) {
	upTo := w.lowWater
	if r.live && r.end.before(upTo) { // later entries are in the queue
		upTo = r.end
	}
	r.state, r.answered, r.early = replayAsk, false, w.seq.newest.before(r.cursor)
	r.query = &Query{User: r.client.user.name, Groups: r.client.Groups(), After: r.cursor, UpTo: upTo, replay: r, window: w}
}

func (w *window) ready(r *replay) bool {
	switch {
	case r.cursor.before(w.lowWater) && !r.isAtEnd():
		if !r.client.isRegistered() {
			r.abandon() // the browser keeps its id, and the next hub continues from there
			return false
		}
		// Otherwise, with a window shorter than the entries that arrive during a query, the replay would
		// never catch up.
		if r.answered && !r.live {
			r.goLive()
		}
		w.ask(r)
		return false
	case r.early && !w.seq.newest.before(r.cursor):
		// Meanwhile this hub has read up to the cursor, so its window is more reliable than the query.
		if r.early = false; !w.knows(r.cursor) {
			r.fail(w.seq.newest, GapUnknownID)
			return false
		}
	}
	return true
}

// owner returns a new owner: a client may register later.
func (w *window) owner(to Recipient) *owner {
	o := w.owners.add(to)
	w.charge(o)
	return o
}

func (w *window) between(r *replay) (iter.Seq[*entryNode], ID) {
	return w.entries.between(r.client, r.cursor, r.end), r.end
}

func (w *window) reach() (here, elsewhere time.Duration) {
	from := w.lowWater
	if from == (ID{}) && w.nodes.len() > 0 { // the window has the whole log
		from = w.nodes.at(0).id
	}
	if from == (ID{}) { // nothing was loaded
		return 0, 0
	}
	age := max(time.Since(time.UnixMilli(int64(from.Ms))), 0)
	return age, age
}

func (w *window) isTimed() bool { return false }

func (w *window) add(o *owner, e Entry) { w.keep(o, e, false) }

func (w *window) addForAll(e Entry, allTopics bool) { w.keep(&w.broadcasts, e, allTopics) }

// skip adds an entry of which only the id matters.
func (w *window) skip(e Entry) { w.keep(nil, e, false) }

func (w *window) keep(owner *owner, e Entry, allTopics bool) {
	w.nodes.pushBack(w.push(owner, e, allTopics))
	w.trim()
}

func (w *window) trim() {
	for w.bytes > w.limit && w.nodes.len() > 0 {
		w.drop()
	}
}

// drop removes the oldest entry.
func (w *window) drop() {
	n := w.nodes.popFront()
	w.pop(n)
	w.lowWater = n.id
	if n.owner != nil && n.owner != &w.broadcasts {
		w.forgetIfEmpty(n.owner)
	}
}

// clear removes all entries after the log went backwards.
func (w *window) clear(newest ID) {
	for w.nodes.len() > 0 {
		w.drop()
	}
	w.lowWater, w.reset = newest, &newest
}

func (w *window) joined(o *owner, isNew bool) {
	if !isNew {
		w.discharge(o)
	}
}

func (w *window) left(o *owner) {
	w.charge(o)
	w.forgetIfEmpty(o)
	w.trim()
}

// hold keeps nothing, because the window has the entries of all users.
func (w *window) hold(Recipient) (ok bool) { return w.loaded }

// forgetIfEmpty removes an owner without clients and entries. This loses no information, because all owners share one
// low-water mark.
func (w *window) forgetIfEmpty(o *owner) {
	if len(o.clients) == 0 && o.past.entries.len() == 0 {
		w.discharge(o)
		w.owners.remove(o)
	}
}
