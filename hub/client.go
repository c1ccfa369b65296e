package hub

import (
	"slices"
	"sync"
	"time"
)

// A Consumer writes the frames of a client. Its methods are called with the hub's locks
// held: they must return immediately, for example after starting a goroutine, and must
// not call the hub or the client.
type Consumer interface {
	// Wake is called when a frame is queued or the client has ended. The consumer then calls Take
	// until it returns nil. Until then, Wake is not called again.
	Wake()
	// Interrupt is called when the client is ended immediately (End) between Wake and the Take that
	// returns nil. The consumer should cancel a write in progress.
	Interrupt()
}

// Options select what a client receives.
type Options struct {
	User     string
	Groups   []string // groups of which the user is a member while the client is open
	Topics   []string // accepted topics; nil: all; "" selects messages without a topic
	Named    bool     // the event's name contains the topic
	Resume   string   // the last id that the browser received; "" for a new stream
	Consumer Consumer
}

// A Client represents one stream in the hub, with a bounded queue of frames. Its methods are safe for
// concurrent use, except those that only the consumer calls.
//
// A new client is already awake: its owner writes the head of the response and then calls Take, without
// a call of Wake.
type Client struct {
	// Immutable after Register.
	hub      *Hub
	user     *owner
	groups   *groupSet // nil: none
	topics   *topicSet // nil: all
	consumer Consumer
	opening  ID
	since    time.Duration // since Hub.born
	named    bool

	// Guarded by hub.mu.
	counted       bool    // in hub.audience
	index         int32   // in hub.clients; -1 once the client has ended
	replay        *replay // is sent before the queue; nil: nothing
	queueStart    ID      // only later entries are enqueued; the client already has the others, or they are replayed
	lastBroadcast uint32  // number of the newest broadcast that it has received: see broadcasts

	// Guarded by mu.
	mu        sync.Mutex
	reason    Reason // zero: the client is open
	activity  activity
	replaying bool // replay is not nil
	lost      bool // a frame was discarded
	queue     queue
}

// activity is the state of a client's consumer.
type activity uint8

const (
	asleep activity = iota
	awake           // between Wake and the Take that returns nil
	done            // Take has returned the reason and is not called again
)

// User returns the user that the client belongs to.
func (c *Client) User() string { return c.user.name }

// Groups returns the groups of which the user is a member, sorted and without duplicates; nil: none.
func (c *Client) Groups() (names []string) {
	set := c.memberships()
	for i := range set { // does not read the rest of a membership, because the lock is not held
		names = append(names, set[i].group.name)
	}
	return names
}

// Topics returns the topics of the client, sorted and without duplicates; nil: all.
func (c *Client) Topics() []string {
	if c.topics == nil {
		return nil
	}
	return slices.Clone(*c.topics)
}

// Since returns when the client was registered. It is computed from the client's age and the current wall
// clock: it changes if that clock is set, but time.Since of it is always the age.
func (c *Client) Since() time.Time {
	return c.hub.timeOf(c.since)
}

// Opening returns the position from which the client is complete: Take returns every later entry that
// concerns the client, or a gap in its place. The position is that of Options.Resume if the hub knows it.
// Otherwise Opening returns UnknownID. Until the first frame, which is a gap unless the hub finds the
// position later, the client is complete only up to its own id.
func (c *Client) Opening() ID { return c.opening }

// Reason returns why the client ended; zero while it is open.
func (c *Client) Reason() Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// Ended returns when the client ended; zero while it is open.
func (c *Client) Ended() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == 0 {
		return time.Time{}
	}
	return c.hub.timeOf(c.queue.rare.endedAt)
}

// A ClientState describes a client at one moment.
type ClientState struct {
	QueuedFrames int // not yet taken
	QueuedBytes  int // not yet taken, or being written
	// LastID is the position up to which the consumer has taken all entries that concern the
	// client. They have been written to the browser, or are being written.
	LastID ID
}

// State returns the current state.
func (c *Client) State() ClientState {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.catchUp()
	c.mu.Lock()
	defer c.mu.Unlock()
	last := later(c.newest(), c.queueStart)
	switch {
	case c.replay != nil:
		last = c.replay.cursor
	case len(c.queue.frames) > 0:
		last = c.hub.seq.previous(c.queue.frames[0].ID)
	}
	return ClientState{QueuedFrames: len(c.queue.frames), QueuedBytes: c.queue.held(), LastID: last}
}

// Nudge wakes the consumer even if nothing is queued, so that it can write a ping.
func (c *Client) Nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == 0 {
		c.wake()
	}
}

// Finish ends the client after its queued frames: nothing more is enqueued, and Take returns
// first what is queued, then the reason. If the client has ended already, the earlier reason stays.
func (c *Client) Finish(reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.end(c, reason, true)
}

// FinishIfServed calls Finish if the client's queue is empty and its replay, if any, is complete.
func (c *Client) FinishIfServed(reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.catchUp()
	c.mu.Lock()
	served := len(c.queue.frames) == 0 && !c.replaying
	c.mu.Unlock()
	if served {
		c.hub.end(c, reason, true)
	}
}

// End ends the client immediately and discards its queue. After Finish, it only discards the queue: the
// earlier reason stays.
func (c *Client) End(reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.end(c, reason, false)
}

// catchUp enqueues the pending broadcasts for an open client. c.hub.mu is held.
func (c *Client) catchUp() {
	if c.isRegistered() {
		c.hub.broadcasts.catchUp(c)
	}
}

// isRegistered is false once the client has ended. c.hub.mu is held.
func (c *Client) isRegistered() bool { return c.index >= 0 }

// wants reports whether the client's topic filter accepts a topic.
func (c *Client) wants(topic string) bool {
	return c.topics == nil || c.topics.has(topic)
}

// isLive reports whether entries go into the client's queue. c.hub.mu is held.
func (c *Client) isLive() bool { return c.replay == nil || c.replay.live }

// accepts reports whether an entry goes into the client's queue: not while older entries are replayed, and
// not if the client already has the entry. c.hub.mu is held.
func (c *Client) accepts(id ID) bool {
	return c.isLive() && (c.queueStart == ID{} || c.queueStart.before(id))
}

// wake notifies the consumer, unless it is awake. c.mu is held.
func (c *Client) wake() {
	if c.activity == asleep {
		c.activity = awake
		c.consumer.Wake()
	}
}

// wakeForGap notifies the consumer if a gap waits to be spread.
func (c *Client) wakeForGap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.queue.endsWithSpread() {
		c.wake()
	}
}

// notify locks c.mu and calls wake.
func (c *Client) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// sleep marks the consumer as asleep: it waits for the log.
func (c *Client) sleep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.activity = asleep
}

// enqueue adds f to the queue. It returns false if the queue is full; then the caller ends the client.
// With noWake, the consumer is not woken: the caller does so later.
func (c *Client) enqueue(f *Frame, noWake bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.queue.fits(f, &c.hub.cfg) && !c.queue.mayExceed(c.hub.now(), c.hub.cfg.QueueGrace, c.endIfExpired) {
		c.lost = true // f is lost; set now because Take may empty the queue before the client ends
		return false
	}
	c.queue.push(f)
	c.hub.count.enqueued(f)
	if !noWake {
		c.wake()
	}
	return true
}

// endIfExpired ends the client if its queue has exceeded its bounds for the grace period.
func (c *Client) endIfExpired() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.mu.Lock()
	expired := c.queue.isExpired(c.hub.now(), c.hub.cfg.QueueGrace, c.endIfExpired)
	c.mu.Unlock()
	if expired {
		c.hub.end(c, ReasonSlow, false)
	}
}

// stop records the reason. Unless graceful, it also empties the queue. c.hub.mu is held.
func (c *Client) stop(reason Reason, graceful bool) {
	abandoned := false
	if r := c.replay; r != nil && r.state == replayLocate {
		c.hub.waiting.remove(r)
	}
	if r := c.replay; r != nil && graceful {
		if abandoned = r.waitsForLog() || r.early; !abandoned && !r.live {
			r.goLive() // the replay continues up to the current end
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == 0 {
		c.reason = reason
		c.queue.stop(c.hub.now(), c.hub.seq.newest)
	}
	if abandoned {
		c.abandonReplay()
	}
	if !graceful {
		c.replay = nil
		c.lost = c.lost || c.replaying || c.queue.held() > 0
		c.replaying = false
		c.queue.settle(c.queue.inFlight)
		c.discard()
		if c.activity == awake {
			c.consumer.Interrupt()
		}
	}
	c.wake()
}

// discard empties the queue. c.mu is held.
func (c *Client) discard() {
	c.hub.count.released(c.queue.frames)
	c.hub.count.discarded(c.queue.frames, c.reason)
	c.queue.clear()
}

// held returns the bytes that the client keeps in memory.
func (c *Client) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.held()
}
