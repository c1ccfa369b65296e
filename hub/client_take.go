package hub

// What the consumer of a client does: it takes the replay and then the queue.

// Take moves all queued frames to the caller; for a client that resumes, it first returns what
// the client has missed, in parts. If there are no frames, it returns nil, and the consumer waits
// for Wake; if reason is not zero then, the client has ended and Take must not be called again.
// The consumer passes the frames to Settle. Only the consumer calls Take.
//
// The slice spent, if not nil, becomes the next queue: a busy consumer passes back the slice that
// it took before, so that nothing is allocated.
func (c *Client) Take(spent []*Frame) (frames []*Frame, reason Reason) {
	clear(spent)
	for {
		c.mu.Lock()
		replaying := c.replaying
		if !replaying {
			frames, reason = c.takeQueue(spent)
		}
		c.mu.Unlock()
		if !replaying {
			return frames, reason
		}
		if frames, again := c.takeReplay(); !again {
			return frames, 0
		}
	}
}

// takeQueue is Take without a replay. c.mu is held.
func (c *Client) takeQueue(spent []*Frame) (frames []*Frame, reason Reason) {
	if frames = c.queue.take(spent); frames != nil {
		return frames, 0
	}
	c.activity = asleep
	if c.reason != 0 {
		c.activity = done
	}
	return nil, c.reason
}

// takeReplay is Take with a replay. With again there are no frames yet.
func (c *Client) takeReplay() (frames []*Frame, again bool) {
	h := c.hub
	h.mu.Lock()
	if c.replay == nil { // it was at its end, or is abandoned
		h.mu.Unlock()
		return nil, true
	}
	entries, query, wait := c.replay.next()
	if wait {
		c.sleep()
	}
	for _, e := range entries {
		var f *Frame // nil: to be encoded
		if e.node != nil {
			f = e.node.frame(c.variant(e.Entry))
		}
		frames = append(frames, f)
	}
	h.mu.Unlock()
	if query != nil {
		query.window.query(query)
	}
	c.encode(entries, frames)
	return frames, !wait && !c.countReplayed(frames)
}

// encode fills in the frames that are nil, and lets other clients that resume have them.
func (c *Client) encode(entries []replayEntry, frames []*Frame) {
	share := false
	for i, e := range entries {
		if frames[i] == nil {
			frames[i] = &Frame{Wire: c.hub.cfg.Encode(nil, e.Entry, c.variant(e.Entry) == 1), ID: e.ID, Gap: e.Gap, Replayed: true}
			share = share || e.node != nil
		}
	}
	if !share {
		return
	}
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	for i, e := range entries {
		if e.node != nil {
			e.node.share(c.variant(e.Entry), frames[i])
		}
	}
}

// countReplayed counts frames that were not in the queue as taken, and reports whether there are any. They are
// not in the sum of all queues: the history limits them.
func (c *Client) countReplayed(frames []*Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(frames) == 0 || !c.replaying { // it has ended meanwhile
		return false
	}
	for _, f := range frames {
		c.hub.count.enqueued(f)
	}
	c.queue.extendExcess() // it waits for the replay: a client that takes that is not slow
	return true
}

// variant is how an entry is encoded for the client: 1 with the topic in the event's
// name, else 0.
func (c *Client) variant(e Entry) int {
	if c.named && e.Gap == 0 {
		return 1
	}
	return 0
}

// Settle accounts for frames that Take returned. The first delivered ones were written to the
// socket; the others are counted as discarded, because the client has ended.
func (c *Client) Settle(frames []*Frame, delivered int) {
	bytes := 0
	for _, f := range frames {
		bytes += len(f.Wire)
	}
	c.mu.Lock()
	c.queue.settle(bytes)
	reason := c.reason
	c.mu.Unlock()
	c.hub.count.released(frames)
	c.hub.count.delivered(frames[:delivered])
	c.hub.count.discarded(frames[delivered:], reason)
}

// Position returns the newest id up to which the client is complete, assuming that all taken
// frames have been written. ok is false if something is queued, has yet to be replayed, or was
// discarded; id is an id of this hub even then. After the end of the client, the position no
// longer changes. Only the consumer calls it: between Wake and the Take that returns nothing,
// or after that Take, for the goodbye.
func (c *Client) Position() (id ID, ok bool) {
	c.hub.mu.Lock() // no entry is on its way
	defer c.hub.mu.Unlock()
	c.catchUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.newest()
	// A client that is early keeps its id until the log has got there.
	return later(at, c.queueStart), len(c.queue.frames) == 0 && !c.lost && !c.replaying && !at.before(c.queueStart)
}

// newest is the newest entry that concerns the client. c.hub.mu and c.mu are held.
func (c *Client) newest() ID {
	if c.end != nil {
		return c.end.newest
	}
	return c.hub.seq.newest
}

// startReplay is called while the client is being registered.
func (c *Client) startReplay() *replay {
	c.replaying = true
	c.replay = &replay{client: c, resets: c.hub.seq.resets}
	return c.replay
}

// goLive lets entries after an id go into the queue. c.hub.mu is held.
func (c *Client) goLive(start ID) {
	c.queueStart = start
	if c.isRegistered() {
		c.hub.audience.add(c)
	}
	c.hub.seq.await(c)
}

// endReplay lets the queue be taken. c.hub.mu is held.
func (c *Client) endReplay() {
	c.replay = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replaying = false
}

// abandonReplay ends a replay that cannot go on because the client has ended: from then on it neither sends a
// query nor accepts an answer, because its user may be unknown to the hub. What is queued is later than
// what is missing, and is discarded as well. c.hub.mu and c.mu are held.
func (c *Client) abandonReplay() {
	c.replay = nil
	c.replaying, c.lost = false, true
	c.discard()
}
