package hub

import (
	"slices"
	"sync"
)

// A Tap hears what comes live for one user, as a stream of the user's without a
// topic filter would, broadcasts and gaps included. It is no client: nothing that it
// hears is counted as a delivery, and the hub neither waits for it nor keeps anything
// for it but a bounded list. What comes while that is full is skipped, and counted.
//
// Nobody need be there: a tap hears of messages that the user has no stream for.
type Tap struct {
	// Immutable after Hub.Tap.
	hub   *Hub
	user  string
	ready chan struct{} // holds one while there is something to take

	// Guarded by mu.
	mu      sync.Mutex
	heard   []Heard
	bytes   int    // of heard
	skipped uint64 // after what is in heard
}

// Heard is an entry that a tap heard.
type Heard struct {
	Entry
	ToAll bool // for everybody, not for this user alone
}

// What a tap holds for a reader that is slow. Large enough for a burst; small enough
// to be no matter beside the queues.
const (
	tapEntries = 256
	tapBytes   = 1 << 20
)

// Tap begins to listen. Close it when done.
func (h *Hub) Tap(user string) *Tap {
	t := &Tap{hub: h, user: user, ready: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps = append(h.taps, t)
	return t
}

// Close ends the tap. What it holds may still be taken.
func (t *Tap) Close() {
	h := t.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.taps = slices.DeleteFunc(h.taps, func(other *Tap) bool { return other == t })
}

// Ready has something to receive once there is something to take.
func (t *Tap) Ready() <-chan struct{} { return t.ready }

// Take hands over what was heard since the last time, in the order of the sequence,
// and how many entries were skipped after these.
func (t *Tap) Take() (heard []Heard, skipped uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	heard, skipped = t.heard, t.skipped
	t.heard, t.bytes, t.skipped = nil, 0, 0
	return heard, skipped
}

// tell lets those taps hear an entry that are meant. h.mu is held; callers look first
// whether there are any, so that nobody pays for what nobody uses.
func (h *Hub) tell(user string, toAll bool, e Entry) {
	for _, t := range h.taps {
		if toAll || t.user == user {
			t.hear(Heard{Entry: e, ToAll: toAll})
		}
	}
}

// hear never waits.
func (t *Tap) hear(e Heard) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := len(e.Topic) + len(e.Payload)
	full := len(t.heard) > 0 && (len(t.heard) >= tapEntries || t.bytes+size > tapBytes)
	if full || t.skipped > 0 { // else what was skipped would not be after all that is held
		t.skipped++
	} else {
		t.heard = append(t.heard, e)
		t.bytes += size
	}
	select {
	case t.ready <- struct{}{}:
	default:
	}
}
