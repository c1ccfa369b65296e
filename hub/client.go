package hub

import (
	"slices"
	"sync"
	"time"
)

// A Consumer is told when its client needs it. Its methods are called with the
// hub's locks held: they must return at once and must not call the hub or the
// client; starting a goroutine is what they are for.
type Consumer interface {
	// Wake says that the queue holds something, or that the client ended.
	// The consumer then calls Take until Take says that there is nothing more.
	// Between those two, Wake is not called again.
	Wake()
	// Interrupt says that the client was ended without ceremony while the
	// consumer may be in the middle of a write, which is then in vain.
	Interrupt()
}

// Options say what a client wants to hear.
type Options struct {
	User     string
	Topics   []string // only these; nil: all; "" is "no topic"
	Named    bool     // wants the topic in the event's name
	Resume   string   // the last id the browser saw; "" for a first connect
	Consumer Consumer
}

// A Client is a stream's place in the hub: its bounded queue of frames. The
// queue takes memory only while something is in it.
//
// A new client counts as woken: its owner writes the head of the response in
// peace and then calls Take as if Wake had been called.
type Client struct {
	// Immutable after Register.
	hub      *Hub
	user     *user
	topics   *topicSet // nil: all
	consumer Consumer
	opening  point
	since    time.Duration // Hub.born
	unknown  bool          // opening is not a place of this hub
	named    bool

	// Guarded by hub.mu.
	counted bool    // in hub.audience
	index   int     // in hub.clients; -1 once the client has left
	replay  *replay // what comes before the queue; nil: nothing
	skip    point   // the client has everything up to here
	heard   uint64  // broadcasts that it was handed: see Hub.broadcast

	// Guarded by mu.
	mu        sync.Mutex
	reason    Reason
	replaying bool // replay is not nil
	woken     bool // the consumer is between Wake and the Take that ends it
	told      bool // Take has said the reason: the consumer is done and is not called again
	lost      bool // something was discarded
	queue     []*Frame
	one       [1]*Frame // the queue's memory as long as it is not longer
	bytes     int       // of queue
	flight    int       // bytes taken and not yet settled
	end       *end      // nil: the client is open
	over      *over     // nil: the queue has not been over its bounds
}

// end is what there is to know of a client that has ended.
type end struct {
	final point // the newest entry then
	at    time.Time
}

// over is what there is to know of a queue that went over its bounds.
type over struct {
	since time.Time   // zero: it is within them again
	timer *time.Timer // calls endIfOver; nil: not set
}

// User is the user the client belongs to.
func (c *Client) User() string { return c.user.name }

// Topics are the different topics that the client wants, in order; nil: all.
func (c *Client) Topics() []string {
	if c.topics == nil {
		return nil
	}
	return slices.Clone(*c.topics)
}

// Since is when the client was registered, by the wall clock as it is set now: a step of
// that clock moves it. An age that is computed from it (time.Since) does not depend on the
// wall clock.
func (c *Client) Since() time.Time {
	now := time.Now()
	return now.Add(c.since - now.Sub(c.hub.born))
}

// Opening is the point from which the client is complete: every later entry
// that concerns it comes with Take, or a gap in its place. It is Options.Resume if that
// is a place of this hub. It is UnknownID if Options.Resume is not, or if the hub has no
// place yet: then a gap comes before anything else.
func (c *Client) Opening() ID {
	if c.unknown {
		return UnknownID
	}
	return c.hub.id(c.opening)
}

// Reason says why the client ended; zero while it is open.
func (c *Client) Reason() Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// Ended is when the client ended; zero while it is open.
func (c *Client) Ended() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end == nil {
		return time.Time{}
	}
	return c.end.at
}

// Take hands over all that is queued, or, for a client that has come back, the next
// part of what it has missed. With nothing to hand over it returns nil: then
// the consumer stops and waits for Wake, or, when reason is not zero, the client
// has ended and the consumer says goodbye. Frames that were taken are accounted
// for with Settle. Only the consumer calls Take.
//
// The slice spent, if not nil, becomes the next queue: a consumer that is busy
// passes back what it took before and nothing is allocated.
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
		if frames, again := c.replayed(); len(frames) > 0 || !again {
			return frames, 0
		}
	}
}

// takeQueue is Take without a replay. c.mu is held.
func (c *Client) takeQueue(spent []*Frame) (frames []*Frame, reason Reason) {
	if len(c.queue) == 0 {
		c.queue = nil // an idle client owns none
		c.woken, c.told = false, c.reason != 0
		return nil, c.reason
	}
	if len(c.queue) == 1 && &c.queue[0] == &c.one[0] {
		frames = append(spent[:0], c.one[0])
		c.one[0], c.queue = nil, nil
	} else {
		frames, c.queue, c.one[0] = c.queue, spent[:0], nil
	}
	if c.over != nil {
		c.over.since = time.Time{}
	}
	c.flight += c.bytes
	c.bytes = 0
	return frames, 0
}

// Settle accounts for frames that Take handed over: the first delivered of them
// reached the socket, the rest did not because the client ended.
func (c *Client) Settle(frames []*Frame, delivered int) {
	bytes := 0
	for _, f := range frames {
		bytes += len(f.Wire)
	}
	c.mu.Lock()
	bytes = min(bytes, c.flight) // nothing is left of it after End
	c.flight -= bytes
	reason := c.reason
	c.mu.Unlock()
	c.hub.count.released(frames)
	c.hub.count.delivered(frames[:delivered])
	c.hub.count.discarded(frames[delivered:], reason)
}

// Position is the newest point of the sequence up to which the client is
// complete, given that everything taken before has been written; ok is false
// when something is queued, has yet to be replayed, or was discarded. Once the
// client has ended it stays where it was then. The id is one of this hub also if ok is
// false. Only the consumer calls it, between Wake and the Take that ends it or, for the
// goodbye, after the Take that said the reason.
func (c *Client) Position() (id ID, ok bool) {
	c.hub.mu.Lock() // no entry is on its way
	defer c.hub.mu.Unlock()
	if c.index >= 0 {
		c.hub.catchUp(c)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	at := c.hub.pos
	if c.end != nil {
		at = c.end.final
	}
	// One that is ahead of this hub keeps its id until the log has got there.
	return c.hub.id(later(at, c.skip)), len(c.queue) == 0 && !c.lost && !c.replaying && !at.before(c.skip)
}

// Nudge wakes the consumer although nothing may be queued, for a ping.
func (c *Client) Nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == 0 {
		c.wake()
	}
}

// Finish ends the client politely: nothing is enqueued any more, what is queued
// is still there to take, and then Take says reason. The first reason counts.
func (c *Client) Finish(reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.end(c, reason, true)
}

// FinishIfServed is Finish if nothing is queued for the client or has yet to be replayed
// to it. It may be called from any goroutine.
func (c *Client) FinishIfServed(reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	if c.index >= 0 {
		c.hub.catchUp(c)
	}
	c.mu.Lock()
	served := len(c.queue) == 0 && !c.replaying
	c.mu.Unlock()
	if served {
		c.hub.end(c, reason, true)
	}
}

// End ends the client at once: what is queued is discarded. The first reason
// counts; End after Finish only discards.
func (c *Client) End(reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.end(c, reason, false)
}

// wants reports whether the client's topic filter lets a topic through.
func (c *Client) wants(topic string) bool {
	return c.topics == nil || c.topics.has(topic)
}

// wake tells the consumer, once until it has stopped. c.mu is held.
func (c *Client) wake() {
	if !c.woken && !c.told {
		c.woken = true
		c.consumer.Wake()
	}
}

// enqueue puts f into the queue and reports whether there was room. With quietly
// the consumer is not woken: the caller sees to that later.
func (c *Client) enqueue(f *Frame, quietly bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.fits(f) && !c.mayBeOver() {
		c.lost = true // f is; the caller ends the client, whose queue may be taken before that
		return false
	}
	if c.queue == nil {
		c.queue = c.one[:0]
	}
	c.queue = append(c.queue, f)
	c.bytes += len(f.Wire)
	c.hub.count.enqueued(f)
	if !quietly {
		c.wake()
	}
	return true
}

// fits reports whether f keeps the queue within its bounds. A frame that would be
// alone always fits, else a message larger than the bound would end every client
// that it reaches.
func (c *Client) fits(f *Frame) bool {
	cfg := &c.hub.cfg
	return len(c.queue) == 0 || len(c.queue) < cfg.QueueFrames && c.bytes+len(f.Wire) <= cfg.QueueBytes
}

// mayBeOver reports whether the queue may stay over its bounds for now, and sees
// to it that it does not for longer than Config.QueueGrace. A burst comes in at a
// million messages a second, faster than the scheduler gives the consumer its
// turn: a full queue alone does not prove that the reader is slow.
func (c *Client) mayBeOver() bool {
	grace := c.hub.cfg.QueueGrace
	if grace <= 0 {
		return false
	}
	if c.over == nil {
		c.over = new(over)
	}
	if c.over.since.IsZero() {
		c.over.since = time.Now()
	}
	if c.over.timer == nil {
		c.over.timer = time.AfterFunc(grace, c.endIfOver)
	}
	return true
}

// endIfOver ends a client whose queue has been over its bounds for the grace.
func (c *Client) endIfOver() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.mu.Lock()
	c.over.timer = nil
	left := c.hub.cfg.QueueGrace - time.Since(c.over.since)
	over := !c.over.since.IsZero()
	if over && left > 0 { // taken from and full anew
		c.over.timer = time.AfterFunc(left, c.endIfOver)
	}
	c.mu.Unlock()
	if over && left <= 0 {
		c.hub.end(c, ReasonSlow, false)
	}
}

// stop records the reason and, unless politely, empties the queue. c.hub.mu is held.
func (c *Client) stop(reason Reason, politely bool) {
	unfinished := false // what is to be replayed next is not here
	if r := c.replay; r != nil {
		switch {
		case !politely:
			c.replay = nil
		case r.asked, r.ahead:
			unfinished = true
		case !r.live:
			c.goLive(r) // to the end, and no further
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == 0 {
		c.reason, c.end = reason, &end{c.hub.pos, time.Now()}
		if c.over != nil {
			c.over.since = time.Time{} // it grows no more
			if c.over.timer != nil {
				c.over.timer.Stop()
			}
		}
	}
	if unfinished {
		c.giveUpReplay()
	}
	if !politely {
		c.lost = c.lost || c.replaying || c.bytes+c.flight > 0
		c.replaying = false
		c.flight = 0
		c.discard()
		if c.woken {
			c.consumer.Interrupt()
		}
	}
	c.wake()
}

// discard empties the queue. c.mu is held.
func (c *Client) discard() {
	c.hub.count.released(c.queue)
	c.hub.count.discarded(c.queue, c.reason)
	c.queue, c.one[0], c.bytes = nil, nil, 0
}

// held is what the client keeps in memory: waiting and in flight.
func (c *Client) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes + c.flight
}
