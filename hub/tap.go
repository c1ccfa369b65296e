package hub

import (
	"slices"
	"sync"
)

// A Tap receives what is published for one user, as a stream of the user without a topic
// filter would, broadcasts and gaps included. It is not a client: what it receives is not
// counted as a delivery, and the hub does not wait for it. Its list is bounded; entries that
// arrive while it is full are skipped, and counted.
//
// The user need not have a stream.
type Tap struct {
	// Immutable after Hub.Tap.
	hub   *Hub
	user  string
	ready chan struct{} // holds one while there is something to take

	// Guarded by mu.
	mu      sync.Mutex
	entries []TapEntry
	bytes   int    // of entries
	skipped uint64 // after entries
}

// A TapEntry is an entry that a tap received.
type TapEntry struct {
	Entry
	ToAll bool // for all users, not for this one alone
}

// What a tap holds for a slow reader. Large enough for a burst; small enough
// to be negligible next to the queues.
const (
	tapEntries = 256
	tapBytes   = 1 << 20
)

// Tap returns a tap of a user. Close it after use.
func (h *Hub) Tap(user string) *Tap {
	t := &Tap{hub: h, user: user, ready: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps = append(h.taps, t)
	return t
}

// Close ends the tap. Entries that it has received can still be taken.
func (t *Tap) Close() {
	h := t.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps = slices.DeleteFunc(h.taps, func(other *Tap) bool { return other == t })
}

// Ready returns a channel that receives a value when Take has something to return.
func (t *Tap) Ready() <-chan struct{} { return t.ready }

// Take returns what was received since the last time, in the order of the sequence, and how
// many entries were skipped after these.
func (t *Tap) Take() (entries []TapEntry, skipped uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries, skipped = t.entries, t.skipped
	t.entries, t.bytes, t.skipped = nil, 0, 0
	return entries, skipped
}

// taps are mostly none. They are guarded by Hub.mu.
type taps []*Tap

// add gives an entry to the taps of its user, or to all. A caller on the path of messages first looks
// whether there are any taps.
func (s taps) add(user string, toAll bool, e *Entry) {
	for _, t := range s {
		if toAll || t.user == user {
			t.add(TapEntry{Entry: *e, ToAll: toAll})
		}
	}
}

// add never waits.
func (t *Tap) add(e TapEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := len(e.Topic) + len(e.Payload)
	full := len(t.entries) > 0 && (len(t.entries) >= tapEntries || t.bytes+size > tapBytes)
	if full || t.skipped > 0 { // otherwise what was skipped would not be after all that is held
		t.skipped++
	} else {
		t.entries = append(t.entries, e)
		t.bytes += size
	}
	select {
	case t.ready <- struct{}{}:
	default:
	}
}
