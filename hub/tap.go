package hub

import (
	"slices"
	"sync"
)

// A Tap receives all entries for one recipient, as a stream of the user without groups and topic filter would, including
// broadcasts and gaps. It is not a client: its entries do not count as deliveries, and the hub does not wait for it. Its list is
// bounded: entries that arrive while it is full are skipped and counted.
//
// A Tap also works for a recipient without a stream.
type Tap struct {
	// Immutable after Hub.Tap.
	hub   *Hub
	to    Recipient
	ready chan struct{} // one slot, filled when Take has something to return

	// Guarded by mu.
	mu      sync.Mutex
	entries []TapEntry
	bytes   int    // of entries
	skipped uint64 // number of entries skipped after entries
}

// A TapEntry is an entry that a tap received.
type TapEntry struct {
	Entry
	ToAll bool // for all users, not only for this recipient
}

// Bounds of a tap's list: large enough for a burst, small enough to be negligible compared to the queues.
const (
	tapEntries = 256
	tapBytes   = 1 << 20
)

// Tap returns a new tap of a recipient. The caller must close it.
func (h *Hub) Tap(to Recipient) *Tap {
	t := &Tap{hub: h, to: to, ready: make(chan struct{}, 1)}
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

// Take returns the entries since the last Take, in the order of the sequence, and how many were skipped after them.
func (t *Tap) Take() (entries []TapEntry, skipped uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	entries, skipped = t.entries, t.skipped
	t.entries, t.bytes, t.skipped = nil, 0, 0
	return entries, skipped
}

// taps lists all taps, usually none. It is guarded by Hub.mu.
type taps []*Tap

// add adds an entry to the taps of its recipient, or to all taps. On the hot path, the caller first checks whether the list
// is empty.
func (s taps) add(to Recipient, toAll bool, e *Entry) {
	for _, t := range s {
		if toAll || t.to == to {
			t.add(TapEntry{Entry: *e, ToAll: toAll})
		}
	}
}

// add adds an entry, or counts it as skipped. It never blocks.
func (t *Tap) add(e TapEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	size := len(e.Topic) + len(e.Payload)
	full := len(t.entries) > 0 && (len(t.entries) >= tapEntries || t.bytes+size > tapBytes)
	if full || t.skipped > 0 { // once entries were skipped, skip later ones until Take: skipped entries are after all listed ones
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
