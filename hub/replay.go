package hub

// A replay is what a client that resumes is sent before the first frame of its queue. It reads
// the history at the pace of the client's writer; what the history drops before it was read
// becomes a gap. The client's consumer drives it, from state to state:
//
//	unloaded ──▶ ask ──▶ wait ──▶ answer ──▶ history ──▶ live (Client.replay is nil)
//	                       │                  │   ▲
//	                       └─────▶ gap ◀──────┘   │
//	                                └─────────────┘
//
// With a PubSub it begins with history or a gap. From history it goes back to ask if the window of a
// StreamFeed has dropped meanwhile what comes next. All fields are guarded by Hub.mu.
type replay struct {
	client *Client
	state  replayState
	cursor ID  // the client has everything up to here
	gap    Gap // is announced next, with the cursor as its id

	// Entries after end go into the client's queue once the replay is live, and before that none do. With a PubSub it is live from
	// the start, because the history is short. With a StreamFeed it is live at its end, because it may take long; or, if
	// the window is shorter than what comes during a query, after the first answer.
	live bool
	end  ID

	resets uint64 // of the sequence, when the replay began or took note of a reset

	// Only with a StreamFeed.
	query      *Query  // while it is to be sent or answered
	answered   bool    // the newest query was, up to its end
	early      bool    // the cursor was later than the newest entry when the query was made
	entries    []Entry // of the answer, not yet sent
	entriesEnd ID      // of the answer
}

// A replayState says what a replay does next.
type replayState uint8

const (
	replayHistory  replayState = iota // send what the history holds
	replayGap                         // announce a gap, then continue with the history
	replayUnloaded                    // wait until the log is loaded
	replayAsk                         // send the query
	replayWait                        // wait for its answer
	replayAnswer                      // send the entries of the answer
)

// waitsForLog reports whether what comes next is not here.
func (r *replay) waitsForLog() bool {
	return r.state == replayUnloaded || r.state == replayAsk || r.state == replayWait
}

// isAtEnd reports whether everything else is in the client's queue.
func (r *replay) isAtEnd() bool { return r.live && r.cursor == r.end }

// fail announces a gap from the cursor to a later id.
func (r *replay) fail(to ID, gap Gap) {
	if r.live && r.end.before(to) {
		to = r.end // the queue has what is later
	}
	r.state, r.cursor, r.gap = replayGap, to, gap
	r.query, r.entries, r.early = nil, nil, false
}

// reset turns what the client has yet to be sent into a gap: the log went backwards.
func (r *replay) reset() {
	seq := &r.client.hub.seq
	r.resets = seq.resets
	switch {
	case !r.live:
		r.fail(seq.newest, GapFeedReset)
	case r.cursor.before(r.end): // what is left is older than what is queued
		r.fail(r.end, GapHistoryExpired)
	default:
		return
	}
	r.client.notify()
}

// goLive lets the queue have what comes from now on.
func (r *replay) goLive() {
	seq := &r.client.hub.seq
	r.live, r.end = true, later(seq.newest, r.cursor)
	r.client.goLive(r.end)
}

// abandon is for a client that has ended.
func (r *replay) abandon() {
	r.client.mu.Lock()
	defer r.client.mu.Unlock()
	r.client.abandonReplay()
}

// A replayEntry is of the history, or of an answer of the log: then node is nil.
type replayEntry struct {
	Entry
	node *entryNode
}

// replayBatch and replayBytes bound what one Take encodes of a replay.
const (
	replayBatch = 64
	replayBytes = 256 << 10
)

// next returns what the client is to be sent next, or a query to be sent to the log. With wait there is nothing until
// the client is woken; otherwise, if there are no entries, the caller calls next again, or takes the queue if that was the
// end. Hub.mu is held.
func (r *replay) next() (entries []replayEntry, query *Query, wait bool) {
	if r.resets != r.client.hub.seq.resets {
		r.abandon()
		return nil, nil, false
	}
	switch r.state {
	case replayUnloaded, replayWait:
		return nil, nil, true
	case replayAsk:
		r.state = replayWait
		return nil, r.query, false
	case replayGap:
		r.state = replayHistory
		return []replayEntry{{Entry: Entry{ID: r.cursor, Gap: r.gap}}}, nil, false
	case replayAnswer:
		return r.fromAnswer(), nil, false
	}
	return r.fromHistory(), nil, false
}

// fromAnswer returns a batch of what the log has answered.
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

// fromHistory returns a batch of what the hub holds. After the last one, the replay is over.
func (r *replay) fromHistory() (batch []replayEntry) {
	h := r.client.hub
	if !h.history.ready(r) {
		return nil
	}
	if !r.live {
		r.end = later(h.seq.newest, r.cursor)
	}
	batch = r.readHistory(h.history)
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

func (r *replay) readHistory(h history) (batch []replayEntry) {
	const look = 16 * replayBatch // a filter may let none of them through
	list, all := h.between(r.client.user, r.cursor, r.end, look)
	size := 0
	for _, n := range list {
		if len(batch) == replayBatch || size >= replayBytes {
			return batch
		}
		r.cursor = n.id
		if n.allTopics || r.client.wants(n.topic) {
			batch = append(batch, replayEntry{Entry{ID: n.id, Topic: n.topic, Payload: n.payload, Gap: n.gap}, n})
			size += len(n.payload)
		}
	}
	if all {
		r.cursor = r.end
	}
	return batch
}
