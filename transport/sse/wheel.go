package sse

import (
	"math"
	"sync"
	"time"
)

// A wheel is a timer wheel: with one timer, it calls tick of many streams, each at a separate
// time. It is a ring of slots, one per step of time, with a linked list of streams in each. A step without
// streams costs nothing.
type wheel struct {
	step    time.Duration        // immutable
	now     func() time.Duration // immutable
	writers *writers             // immutable

	// Guarded by mu.
	mu      sync.Mutex
	slots   [wheelSlots]*stream // the first stream of each list
	next    int64               // the first step whose slot may contain streams
	count   int                 // streams
	timer   *time.Timer         // calls run; nil if the wheel is empty or run is in progress
	at      int64               // the step of timer; noStep without a timer
	running bool                // run is in progress, and sets the timer at its end

	list []*stream // owned by run, which runs once at a time
}

const noStep = math.MaxInt64

// The length of a step is 1/wheelPart of the shortest period of the streams. It determines how many pings are
// written at once and how early a ping can be. A stream whose time is beyond the last slot ticks
// early and is then added again.
const (
	wheelPart  = 256
	wheelSlots = 2 * wheelPart
	minStep    = time.Millisecond
)

// A link connects a stream to the list of a slot.
type link struct {
	next *stream
	here **stream // the pointer to this stream; nil if it is not in a slot
}

func newWheel(period time.Duration, now func() time.Duration, ws *writers) *wheel {
	return &wheel{step: max(period/wheelPart, minStep), now: now, writers: ws, at: noStep}
}

// put schedules tick of s after d, or up to one step earlier. It is late only if d is shorter than a step.
func (w *wheel) put(s *stream, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.workers.Load() == 0 { // the stream has ended: it was removed, or is about to be
		return
	}
	w.unlink(s)
	now := w.now()
	if !w.running { // all slots up to the timer's are empty
		w.next = max(w.next, min(w.at, int64(now/w.step)+1))
	}
	at := min(max(int64((now+d)/w.step), w.next), w.next+wheelSlots-1)
	first := &w.slots[at%wheelSlots]
	s.link = link{*first, first}
	if *first != nil {
		(*first).link.here = &s.link.next
	}
	*first = s
	w.count++
	if !w.running && at < w.at {
		w.schedule(at)
	}
}

// schedule sets the timer to call run at a step. w.mu is held.
func (w *wheel) schedule(at int64) {
	wait := max(time.Duration(at)*w.step-w.now(), 0)
	switch {
	case w.timer == nil:
		w.timer = time.AfterFunc(wait, w.run)
	case w.timer.Stop():
		w.timer.Reset(wait)
	default: // run waits for w.mu, and sets the timer at its end
		return
	}
	w.at = at
}

// remove removes s, if it is in the wheel.
func (w *wheel) remove(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(s)
}

func (w *wheel) unlink(s *stream) {
	l := s.link
	if l.here == nil {
		return
	}
	*l.here = l.next
	if l.next != nil {
		l.next.link.here = l.here
	}
	s.link = link{}
	w.count--
}

// run calls tick of all streams that are due, and sets the timer for the others. It writes some of
// the pings itself, as a feed does with messages: see Cork.
func (w *wheel) run() {
	w.list = w.due(w.list[:0])
	w.writers.cork()
	for _, s := range w.list {
		s.tick()
	}
	w.writers.uncork()
	clear(w.list)
	if cap(w.list) > maxReused {
		w.list = nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running, w.timer, w.at = false, nil, noStep
	if w.count > 0 {
		at := w.next
		for w.slots[at%wheelSlots] == nil {
			at++
		}
		w.schedule(at)
	}
}

// maxReused is the maximum capacity of a slice that is kept for reuse.
const maxReused = 4 << 10

// due removes and returns all streams that are due.
func (w *wheel) due(list []*stream) []*stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = true
	now := w.now()
	for last := int64(now / w.step); w.next <= last; w.next++ {
		for first := &w.slots[w.next%wheelSlots]; *first != nil; {
			list = append(list, *first)
			w.unlink(*first)
		}
	}
	return list
}
