package hub

// A replay sends the missed entries to a client that resumes, before the first frame of its queue. It reads the history
// at the pace of the client's writer. If the history drops entries before they were read, the client receives a gap.
// Each Take of the client's consumer moves the replay to the next state:
//
//	locate ──▶ history or gap
//
//	unloaded ──▶ ask ──▶ wait ──▶ answer ──▶ history ──▶ live (Client.replay is nil)
//	                       │                  │   ▲
//	                       └─────▶ gap ◀──────┘   │
//	                                └─────────────┘
//
// With a PubSub, it begins with locate, history or gap. With a StreamFeed, it returns from history to ask if the window has
// dropped the next entries meanwhile. All fields are guarded by Hub.mu.
type replay struct {
	client *Client
	state  replayState
	cursor ID  // the client has received everything up to here
	gap    Gap // to announce next, with the cursor as its id

	// Once the replay is live, entries after end go into the client's queue; before, none do. With a PubSub, it is live
	// from the start, because the whole history is in memory. With a StreamFeed, it becomes live at its end, because it
	// may take long. If more entries arrive during a query than the window holds, it becomes live after the first answer.
	live bool
	end  ID

	resets uint64 // sequence.resets when the replay began or handled a reset
	origin Origin // to be counted; 0: it was, or the client did not come with an id

	// Only with a PubSub: the search for entries in the ring, of the owners whose past.since is later than the cursor.
	absent *ringSearch // nil: none

	// Only with a StreamFeed.
	query      *Query  // nil: none to send or to wait for
	answered   bool    // the newest query was answered up to its end
	early      bool    // the cursor was later than the newest entry when the query was made
	entries    []Entry // of the answer, not yet sent
	entriesEnd ID      // of the answer
}

// A replayState is what a replay does next.
type replayState uint8

const (
	replayHistory  replayState = iota // send the entries of the history
	replayGap                         // announce a gap, and continue with the history
	replayLocate                      // wait until the place of the client's id is known: see waiting
	replayUnloaded                    // wait until the log is loaded
	replayAsk                         // send the query
	replayWait                        // wait for its answer
	replayAnswer                      // send the entries of the answer
)

// waitsForLog reports whether the next entries must come from the log, or are not known.
func (r *replay) waitsForLog() bool {
	return r.state == replayLocate || r.state == replayUnloaded || r.state == replayAsk || r.state == replayWait
}

// isAtEnd reports whether all remaining entries are in the client's queue.
func (r *replay) isAtEnd() bool { return r.live && r.cursor == r.end }

// fail announces a gap from the cursor to a later id.
func (r *replay) fail(to ID, gap Gap) {
	if r.live && r.end.before(to) {
		to = r.end // later entries are in the queue
	}
	r.state, r.cursor, r.gap = replayGap, to, gap
	r.query, r.entries, r.early = nil, nil, false
}

// reset replaces the rest of the replay by a gap, because the log went backwards.
func (r *replay) reset() {
	seq := &r.client.hub.seq
	r.resets = seq.resets
	switch {
	case !r.live:
		r.fail(seq.newest, GapFeedReset)
	case r.cursor.before(r.end): // the rest of the replay is older than the queue
		r.fail(r.end, GapHistoryExpired)
	default:
		return
	}
	r.client.notify()
}

// resume begins a replay of a PubSub at the place of the client's id, and returns the opening id of its stream. Nothing lies
// between the replay and the entries that go into the queue, because the caller holds the lock (R19).
func (r *replay) resume(p place, state placeState) (opening ID) {
	seq := &r.client.hub.seq
	r.state, opening = replayHistory, UnknownID
	switch state {
	case placeKnown:
		r.cursor, opening = p.at, p.at
	case placeDoubtful:
		seq.addSuffix() // the id would be in doubt again
		r.fail(seq.newest, GapMissed)
	default:
		r.fail(seq.newest, GapUnknownID)
	}
	r.goLive()
	return opening
}

// goLive makes later entries go into the queue.
func (r *replay) goLive() {
	seq := &r.client.hub.seq
	r.live, r.end = true, later(seq.newest, r.cursor)
	r.client.goLive(r.end)
}

// abandon abandons the replay of a client that has ended.
func (r *replay) abandon() {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	r.client.abandonReplay()
}

// A replayEntry is an entry of the history, or of an answer from the log or of the ring: then node is nil.
type replayEntry struct {
	Entry
	node *entryNode
}

// replayBatch and replayBytes limit how much of a replay one Take encodes: entries and bytes.
const (
	replayBatch = 64
	replayBytes = 256 << 10
)

// next returns the next entries, or a query to send to the log. If wait is true, the consumer waits until it is woken.
// Otherwise, without any entries, the caller calls next again, or takes the queue if the replay has ended. Hub.mu is
// held.
func (r *replay) next() (entries []replayEntry, query *Query, wait bool) {
	if r.resets != r.client.hub.seq.resets {
		r.abandon()
		return nil, nil, false
	}
	if r.origin != 0 && !r.waitsForLog() {
		r.countOrigin()
	}
	switch r.state {
	case replayLocate, replayUnloaded, replayWait:
		return nil, nil, true
	case replayAsk:
		r.state = replayWait
		return nil, r.query, false
	case replayAnswer:
		return r.fromAnswer(), nil, false
	}
	return r.fromHistory(), nil, false
}

// countOrigin is called once the hub has found out whether it knows the client's id.
func (r *replay) countOrigin() {
	if r.state == replayGap && r.gap == GapUnknownID {
		r.origin = OriginUnknown
	}
	r.client.hub.count.resumes[r.origin].Add(1)
	r.origin = 0
}

// fromAnswer returns a batch of the log's answer.
func (r *replay) fromAnswer() (batch []replayEntry) {
	for size := 0; len(r.entries) > 0 && len(batch) < replayBatch && size < replayBytes; r.entries = r.entries[1:] {
		e := r.entries[0]
		r.cursor = e.ID
		if r.client.wants(e.Topic) {
			batch = append(batch, replayEntry{Entry: e})
			size += len(e.Payload)
		}
	}
	if len(r.entries) == 0 {
		r.state, r.entries, r.cursor = replayHistory, nil, later(r.cursor, r.entriesEnd)
	}
	return batch
}

// fromHistory returns a batch of the history, with the gap before it, if any. After the last one, it ends the replay.
//
// A gap and the entries after it are returned by the same call. Otherwise, more of these entries could be dropped in between,
// and the client would receive another gap for the same loss.
func (r *replay) fromHistory() (batch []replayEntry) {
	h := r.client.hub
	gap := r.state == replayGap
	r.state = replayHistory
	ready := h.history.ready(r)
	if r.state == replayGap { // now the history has everything after the cursor
		gap, r.state = true, replayHistory
		ready = h.history.ready(r)
	}
	if gap && !ready && r.state == replayHistory { // the ring is still being searched
		r.state = replayGap
		return nil
	}
	if gap {
		batch = []replayEntry{{Entry: Entry{ID: r.cursor, Gap: r.gap}}}
	}
	if !ready {
		return batch
	}
	if !r.live {
		r.end = later(h.seq.newest, r.cursor)
	}
	batch = r.readHistory(h.history, batch)
	if r.cursor != r.end {
		return batch
	}
	if !r.live {
		r.goLive()
	}
	if len(batch) == 0 {
		r.client.endReplay()
	}
	return batch
}

// readHistory adds entries to a batch.
func (r *replay) readHistory(h history, batch []replayEntry) []replayEntry {
	look := 16 * replayBatch // entries to check: a topic filter may accept few of them
	size := 0
	entries, upTo := h.between(r)
	for n := range entries {
		r.cursor = n.id
		if n.allTopics || r.client.wants(n.topic) {
			e := replayEntry{Entry: Entry{ID: n.id, Topic: n.topic, Payload: n.payload, Gap: n.gap}}
			if n.owner != nil {
				e.node = n
			}
			batch = append(batch, e)
		}
		look--
		if size += len(n.payload); look == 0 || len(batch) == replayBatch || size >= replayBytes {
			return batch
		}
	}
	r.cursor = upTo
	return batch
}
