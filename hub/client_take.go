package hub

import "runtime"

// These methods are called by the consumer of a client, which takes the replay and then the queue.

// Take moves all queued frames to the caller. For a client that resumes, it first returns the missed
// entries, in parts. Without any frames it returns nil, and the consumer waits for Wake. If reason is
// not zero then, the client has ended, and Take must not be called again. The consumer passes the frames
// to Settle. Only the consumer calls Take.
//
// The slice spent, if not nil, becomes the next queue. A busy consumer passes the slice that the previous
// Take returned, to avoid allocations.
func (c *Client) Take(spent []*Frame) (frames []*Frame, reason Reason) {
	clear(spent)
	for {
		c.mu.Lock()
		replaying, gap := c.replaying, c.queue.endsWithSpread()
		if !replaying && !gap {
			frames, reason = c.takeQueue(spent)
		}
		c.mu.Unlock()
		if !replaying && gap {
			return c.takeSpread(spent)
		}
		if !replaying {
			return frames, reason
		}
		if frames, again := c.takeReplay(); !again {
			return frames, 0
		}
	}
}

// takeQueue is the part of Take for the queue. c.mu is held.
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

// takeSpread is takeQueue for a queue that ends with a gap that has waited there.
func (c *Client) takeSpread(spent []*Frame) (frames []*Frame, reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.catchUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	if at := c.newest(); c.queue.endsWithSpread() && !at.before(c.queueStart) {
		last := &c.queue.frames[len(c.queue.frames)-1]
		gap := c.hub.gaps.frame(*last, at)
		c.queue.bytes += len(gap.Wire) - len((*last).Wire)
		c.hub.count.released([]*Frame{*last})
		c.hub.count.enqueued(gap)
		*last = gap
	}
	return c.takeQueue(spent)
}

// takeReplay is the part of Take for the replay. If again is true, the caller tries again.
func (c *Client) takeReplay() (frames []*Frame, again bool) {
	h := c.hub
	h.mu.Lock()
	if c.replay == nil { // it has ended or was abandoned
		h.mu.Unlock()
		return nil, true
	}
	entries, query, wait := c.replay.next()
	if wait {
		c.sleep()
	}
	for i := range entries {
		e := &entries[i]
		e.marker = h.seq.markerOf(e.ID)
		var f *Frame // nil: not encoded yet
		if e.node != nil {
			f = e.node.frame(c.variant(e.Entry))
		}
		frames = append(frames, f)
	}
	looking := len(entries) == 0 && !wait && c.replay != nil
	h.mu.Unlock()
	if looking { // a replay may look at many entries before it finds one: others that wait for the lock are first
		runtime.Gosched()
	}
	if query != nil {
		query.window.query(query)
	}
	c.encode(entries, frames)
	return frames, !wait && !c.countReplayed(frames)
}

// encode fills in the frames that are nil, and shares them with other clients that resume.
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

// countReplayed counts replayed frames as enqueued, and reports whether there are any. They do not count
// towards the budget of all queues, because the history limits them.
func (c *Client) countReplayed(frames []*Frame) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(frames) == 0 || !c.replaying { // not replaying: the client has ended meanwhile
		return false
	}
	for _, f := range frames {
		c.hub.count.enqueued(f)
	}
	c.queue.extendExcess(c.hub.now()) // the queue waits for the replay: a client that reads the replay is not slow
	return true
}

// variant returns how an entry is encoded for the client: 1 with the topic in the event's name, otherwise
// 0.
func (c *Client) variant(e Entry) int {
	if c.named && e.Gap == 0 {
		return 1
	}
	return 0
}

// Settle accounts for frames that Take returned. The first delivered frames were written to the socket. The
// others are counted as discarded, because the client has ended.
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

// Position returns the newest id up to which the client is complete, assuming that all taken frames have been
// written. ok is false if a frame is queued or was discarded, or if the replay is not complete; id is an id
// of this hub even then. The position does not change any more after the client has ended. Only the consumer
// calls Position: between Wake and the Take that returns nil, or after that Take, for the last event.
func (c *Client) Position() (id ID, ok bool) {
	c.hub.mu.Lock() // while it is held, no entry is being routed
	defer c.hub.mu.Unlock()
	c.catchUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.newest()
	// A client whose id is later than the log keeps its id until the log has reached it.
	return later(at, c.queueStart), len(c.queue.frames) == 0 && !c.lost && !c.replaying && !at.before(c.queueStart)
}

// newest returns the newest id of the hub; after the client has ended, that at its end. c.hub.mu and c.mu are
// held.
func (c *Client) newest() ID {
	if c.reason != 0 {
		return c.queue.rare.newest
	}
	return c.hub.seq.newest
}

// startReplay sets up a replay. It is called while the client is being registered.
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

// endReplay makes Take continue with the queue. c.hub.mu is held.
func (c *Client) endReplay() {
	c.replay = nil
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replaying = false
}

// abandonReplay ends a replay that cannot continue because the client has ended: the hub may have removed its
// user, so no query may be sent and no answer accepted. The queue is discarded as well, because its frames
// are later than the missing ones. c.hub.mu and c.mu are held.
func (c *Client) abandonReplay() {
	c.replay = nil
	c.replaying, c.lost = false, true
	c.discard()
}
