package sse

import (
	"sync"
	"time"
)

// A wheel calls tick of many streams, each at a time of its own, with one timer: a
// ring of slots, each for one step of time. A stream costs its two links.
type wheel struct {
	step    time.Duration        // immutable
	now     func() time.Duration // immutable
	writers *writers             // immutable

	mu    sync.Mutex
	slots [wheelSlots]*stream // the first of each
	next  int64               // the step whose slot has yet to be emptied
	in    int                 // streams
	timer *time.Timer         // nil: nothing is due

	list []*stream // owned by turn, which runs once at a time
}

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
	return &wheel{step: max(period/wheelPart, minStep), now: now, writers: ws}
}

// put lets s tick after d: up to a step early, and late only if it is due at once.
func (w *wheel) put(s *stream, d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.workers.Load() == 0 { // it was removed, or is about to be
		return
	}
	now := w.now()
	if w.timer == nil {
		w.next = int64(now/w.step) + 1
		w.timer = time.AfterFunc(time.Duration(w.next)*w.step-now, w.turn)
	}
	w.unlink(s)
	at := min(max(int64((now+d)/w.step), w.next), w.next+wheelSlots-1)
	first := &w.slots[at%wheelSlots]
	s.link = link{*first, first}
	if *first != nil {
		(*first).link.here = &s.link.next
	}
	*first = s
	w.in++
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
	w.in--
}

// turn calls all whose time has come, and sets the timer for the others. It writes pings
// itself, as a feed does messages.
func (w *wheel) turn() {
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
	if w.timer = nil; w.in > 0 {
		w.timer = time.AfterFunc(max(time.Duration(w.next)*w.step-w.now(), 0), w.turn)
	}
}

// longList is how long a list of streams may be that is kept for the next time.
const longList = 4 << 10

// due takes out all whose time has come.
func (w *wheel) due(list []*stream) []*stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for last := int64(now / w.step); w.next <= last; w.next++ {
		for first := &w.slots[w.next%wheelSlots]; *first != nil; {
			list = append(list, *first)
			w.unlink(*first)
		}
	}
	return list
}
