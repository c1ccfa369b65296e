package hub

// A Query asks the log for entries that the hub does not hold: those of User, and those for
// all users, after After and up to UpTo. With After beyond UpTo it asks only whether After
// is a place of the log.
type Query struct {
	User        string
	After, UpTo ID

	replay *replay
	window *window
}

// Gone reports whether no client waits for the answer any more. It may be called from any goroutine.
func (q *Query) Gone() bool {
	c := q.replay.client
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	return !q.isAwaited() || !c.isRegistered()
}

// isAwaited is false once the client has ended or the log was reset. Hub.mu is held.
func (q *Query) isAwaited() bool { return q.replay.client.replay == q.replay && q.replay.query == q }

// Answer is the reply to a Query; it may be given from any goroutine, once, and need not be
// once the query is Gone. The entries are those after Query.After and up to covered, in order,
// and belong to the hub; if covered is before Query.UpTo, the hub asks for the rest. A gap
// says why there is no answer: GapHistoryExpired or GapUnknownID.
func (q *Query) Answer(entries []Entry, covered ID, gap Gap) {
	r, w := q.replay, q.window
	h := r.client.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if !q.isAwaited() {
		return
	}
	r.query = nil
	switch {
	case gap != 0 && r.early && (gap == GapHistoryExpired || !w.seq.newest.before(r.cursor)):
		// A gap would have the client's own id or an older one. If the hub has read that far meanwhile, it
		// checks the id itself; otherwise it will find what the log no longer has when it gets there.
		r.state = replayHistory
	case gap == GapUnknownID && !r.live:
		r.fail(w.seq.newest, gap)
	case gap != 0:
		r.fail(w.lowWater, GapHistoryExpired)
	default:
		r.state = replayAnswer
		r.entries, r.entriesEnd = entries, covered
		r.answered = !covered.before(q.UpTo)
	}
	r.client.notify()
}
