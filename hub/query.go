package hub

// A Query requests entries from the log that the hub does not have: those of User, of Groups and for all users, later than
// After and up to UpTo. If After is later than UpTo, it only checks whether After is a position of the log.
type Query struct {
	User        string
	Groups      []string
	After, UpTo ID

	replay *replay
	window *window
}

// Gone reports whether the answer is not needed any more. It is safe for concurrent use.
func (q *Query) Gone() bool {
	c := q.replay.client
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	return !q.isAwaited() || !c.isRegistered()
}

// isAwaited returns false after the client has ended or the log was reset. Hub.mu is held.
func (q *Query) isAwaited() bool { return q.replay.client.replay == q.replay && q.replay.query == q }

// Answer replies to a Query. Call it once, from any goroutine; it is not needed if Gone returns true. The entries are
// those later than Query.After and up to covered, in order. The hub owns them afterwards. If covered is before
// Query.UpTo, the hub makes another query for the rest. A gap, GapHistoryExpired or GapUnknownID, replaces the
// entries.
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
		// A gap here would have the client's own id or an older one. If the hub has read up to that id meanwhile,
		// it checks the id itself. Otherwise it detects missing entries when it reaches the id.
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
