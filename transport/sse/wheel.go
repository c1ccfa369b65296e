package sse

import (
	"math"
	"sync"
	"time"
)

// A wheel calls tick of many streams, each at a time of its own, with one timer: a
// ring of slots, each for one step of time. A stream costs its two links, and a step
// without streams costs nothing.
type wheel struct {
	step    time.Duration        // immutable
	now     func() time.Duration // immutable
	writers *writers             // immutable

	// Guarded by mu.
	mu      sync.Mutex
	slots   [wheelSlots]*stream // the first of each
	next    int64               // the first step whose slot may hold something
	count   int                 // streams
	timer   *time.Timer         // calls run; nil: no stream is due
	at      int64               // the step of timer; noStep without one
	running bool                // run is in progress, and sets the timer at its end

	list []*stream // owned by run, which runs once at a time
}

const noStep = math.MaxInt64

// A step is a wheelPart of the shortest period that streams have: so much of all pings
// can be written in one go, and so early. What is put off for longer than the slots go
// ticks too early, and is put off again.
const (
	wheelPart  = 256
	wheelSlots = 2 * wheelPart
	minStep    = time.Millisecond
)

// A link is a stream's place in a slot.
type link struct {
	next *stream
	here **stream // what points at the stream; nil: it is in no slot
}

func newWheel(period time.Duration, now func() time.Duration, ws *writers) *wheel {
	return &wheel{step: max(period/wheelPart, minStep), now: now, writers: ws, at: noStep}
}

// put lets s tick after d: up to a step early, and late only if it is due immediately.
func (w *wheel) put(s *stream, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.workers.Load() == 0 { // it was removed, or is about to be
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

// schedule lets the timer call run at a step. w.mu is held.
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

// remove takes s out; that it is not in does no harm.
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

// run calls all whose time has come, and sets the timer for the others. It writes pings
// itself, as a feed does messages.
func (w *wheel) run() {
	w.list = w.due(w.list[:0])
	w.writers.cork()
	for _, s := range w.list {
		s.tick()
	}
	w.writers.uncork()
	clear(w.list)
	if cap(w.list) > longList {
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

// longList is how long a list of streams may be that is kept for the next time.
const longList = 4 << 10

// due takes out all whose time has come.
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
