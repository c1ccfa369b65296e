package hub

import (
	"slices"
	"sync"
	"time"
)

// A Consumer is notified when its client needs it. Its methods are called with the
// hub's locks held: they must return immediately and must not call the hub or the
// client; starting a goroutine is what they are for.
type Consumer interface {
	// Wake says that the queue holds something, or that the client ended.
	// The consumer then calls Take until Take returns nothing.
	// Between those two, Wake is not called again.
	Wake()
	// Interrupt says that the client was ended with End while the consumer may be in
	// the middle of a write, which is then in vain.
	Interrupt()
}

// Options say what a client receives.
type Options struct {
	User     string
	Topics   []string // only these; nil: all; "" is "no topic"
	Named    bool     // wants the topic in the event's name
	Resume   string   // the last id that the browser received; "" for a first connect
	Consumer Consumer
}

// A Client is a stream's place in the hub: its bounded queue of frames. Its methods are
// safe for concurrent use, except those that only the consumer calls.
//
// A new client counts as woken: its owner writes the head of the response and then calls
// Take as if Wake had been called.
type Client struct {
	// Immutable after Register.
	hub      *Hub
	user     *user
	topics   *topicSet // nil: all
	consumer Consumer
	opening  ID
	since    time.Duration // since Hub.born
	named    bool

	// Guarded by hub.mu.
	counted       bool    // in hub.audience
	index         int32   // in hub.clients; -1 once the client has ended
	replay        *replay // what comes before the queue; nil: nothing
	queueStart    ID      // only later entries are enqueued: the client has the others, or they are replayed
	lastBroadcast uint32  // the newest that it was handed: see broadcasts

	// Guarded by mu.
	mu        sync.Mutex
	reason    Reason // zero: the client is open
	activity  activity
	replaying bool // replay is not nil
	lost      bool // something was discarded
	queue     queue
	end       *end // nil: the client is open
}

// activity is what the consumer of a client does.
type activity uint8

const (
	asleep activity = iota
	awake           // it is between Wake and the Take that ends it
	done            // Take has returned the reason: it is not called again
)

// end is about a client that has ended.
type end struct {
	newest ID // entry at that time
	at     time.Time
}

// User is the user that the client belongs to.
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

// Opening is the position from which the client is complete: every later entry that
// concerns it comes with Take, or a gap in its place. It is Options.Resume if that is an
// id of this hub. It is UnknownID if Options.Resume is not, or if the hub has no position
// yet: then a gap comes before anything else.
func (c *Client) Opening() ID { return c.opening }

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

// Take moves all that is queued to the caller, or, for a client that resumes, the next
// part of what it has missed. With nothing to take it returns nil: then the consumer stops
// and waits for Wake, or, when reason is not zero, the client has ended and the consumer
// says goodbye. Frames that were taken are accounted for with Settle. Only the consumer
// calls Take.
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

// Settle accounts for frames that Take returned: the first delivered of them
// reached the socket, the rest did not because the client ended.
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

// Position is the newest id up to which the client is complete, given that everything
// taken before has been written; ok is false when something is queued, has yet to be
// replayed, or was discarded. Once the client has ended it stays where it was then. The id
// is one of this hub also if ok is false. Only the consumer calls it, between Wake and the
// Take that ends it or, for the goodbye, after the Take that returned the reason.
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

// A ClientState describes a client at one moment.
type ClientState struct {
	QueuedFrames int // not yet taken
	QueuedBytes  int // not yet taken, or being written
	// LastID is the position up to which all that concerns the client was taken by its
	// consumer: the browser has it, or will once what is being written has arrived.
	LastID ID
}

// State may be called from any goroutine.
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
		last = c.queue.frames[0].ID.Previous()
	}
	return ClientState{QueuedFrames: len(c.queue.frames), QueuedBytes: c.queue.held(), LastID: last}
}

// Nudge wakes the consumer although nothing may be queued, for a ping.
func (c *Client) Nudge() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == 0 {
		c.wake()
	}
}

// Finish ends the client after what is queued: nothing more is enqueued, what is queued
// can still be taken, and then Take returns the reason. The first reason counts.
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
	c.catchUp()
	c.mu.Lock()
	served := len(c.queue.frames) == 0 && !c.replaying
	c.mu.Unlock()
	if served {
		c.hub.end(c, reason, true)
	}
}

// End ends the client immediately: what is queued is discarded. The first reason
// counts; End after Finish only discards.
func (c *Client) End(reason Reason) {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.hub.end(c, reason, false)
}

// catchUp hands an open client the broadcasts that it has yet to be handed. c.hub.mu is held.
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

// accepts reports whether an entry goes into the client's queue: not while it has
// yet to be sent older ones, nor if it had this one elsewhere. c.hub.mu is held.
func (c *Client) accepts(id ID) bool {
	return c.isLive() && (c.queueStart == ID{} || c.queueStart.before(id))
}

// wake notifies the consumer, once until it has stopped. c.mu is held.
func (c *Client) wake() {
	if c.activity == asleep {
		c.activity = awake
		c.consumer.Wake()
	}
}

// notify is wake without c.mu.
func (c *Client) notify() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// sleep ends what Wake has begun: the consumer waits for the log.
func (c *Client) sleep() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.activity = asleep
}

// enqueue puts f into the queue and reports whether there was room; if not, the caller ends the
// client. With quietly the consumer is not woken: the caller sees to that later.
func (c *Client) enqueue(f *Frame, quietly bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.queue.fits(f, &c.hub.cfg) && !c.queue.mayExceed(c.hub.cfg.QueueGrace, c.endIfExpired) {
		c.lost = true // f is; the queue may be taken before the client is ended
		return false
	}
	c.queue.push(f)
	c.hub.count.enqueued(f)
	if !quietly {
		c.wake()
	}
	return true
}

// endIfExpired ends a client whose queue has exceeded its bounds for the grace.
func (c *Client) endIfExpired() {
	c.hub.mu.Lock()
	defer c.hub.mu.Unlock()
	c.mu.Lock()
	expired := c.queue.isExpired(c.hub.cfg.QueueGrace, c.endIfExpired)
	c.mu.Unlock()
	if expired {
		c.hub.end(c, ReasonSlow, false)
	}
}

// stop records the reason and, unless politely, empties the queue. c.hub.mu is held.
func (c *Client) stop(reason Reason, politely bool) {
	abandoned := false
	if r := c.replay; r != nil && politely {
		if abandoned = r.waitsForLog() || r.early; !abandoned && !r.live {
			r.goLive() // to the end, and no further
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reason == 0 {
		c.reason, c.end = reason, &end{c.hub.seq.newest, time.Now()}
		c.queue.stop()
	}
	if abandoned {
		c.abandonReplay()
	}
	if !politely {
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

// held is the bytes that the client keeps in memory.
func (c *Client) held() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.queue.held()
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
