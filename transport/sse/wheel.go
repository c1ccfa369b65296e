package sse

import (
	"sync"
	"time"
)

// A wheel calls tick of many streams, each at a time of its own, with one timer: a
// ring of slots, each for one step of time. A stream costs its two links.
type wheel struct {
	step time.Duration        // immutable
	now  func() time.Duration // immutable

	mu    sync.Mutex
	slots [wheelSlots]link
	next  int64       // the step whose slot has yet to be emptied
	in    int         // streams
	timer *time.Timer // nil: nothing is due
}

// A step is a wheelPart of the shortest period that streams have: so much of all pings
// can be written in one go, and so early. What is put off for longer than the slots go
// ticks too early, and is put off again.
const (
	wheelPart  = 128
	wheelSlots = 2 * wheelPart
	minStep    = time.Millisecond
)

// A link is a stream's place in a slot; unlinked if next is nil.
type link struct {
	next, prev *link
	stream     *stream
}

func newWheel(period time.Duration, now func() time.Duration) *wheel {
	w := &wheel{step: max(period/wheelPart, minStep), now: now}
	for i := range w.slots {
		w.slots[i].next, w.slots[i].prev = &w.slots[i], &w.slots[i]
	}
	return w
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
	slot := &w.slots[at%wheelSlots]
	l := &s.link
	l.stream = s
	l.next, l.prev = slot, slot.prev
	l.prev.next, slot.prev = l, l
	w.in++
}

// remove takes s out; that it is not in does no harm.
func (w *wheel) remove(s *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unlink(s)
}

func (w *wheel) unlink(s *stream) {
	l := &s.link
	if l.next == nil {
		return
	}
	l.prev.next, l.next.prev = l.next, l.prev
	*l = link{}
	w.in--
}

// turn calls all whose time has come.
func (w *wheel) turn() {
	for _, s := range w.due() {
		s.tick()
	}
}

// due takes out all whose time has come, and sets the timer for the others.
func (w *wheel) due() (list []*stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for last := int64(now / w.step); w.next <= last; w.next++ {
		slot := &w.slots[w.next%wheelSlots]
		for slot.next != slot {
			s := slot.next.stream
			w.unlink(s)
			list = append(list, s)
		}
	}
	// Those that are taken out are about to be put in again, or else the next turn
	// finds nobody.
	if w.timer = nil; w.in+len(list) > 0 {
		w.timer = time.AfterFunc(max(time.Duration(w.next)*w.step-now, 0), w.turn)
	}
	return list
}
