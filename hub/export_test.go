package hub

import (
	"reflect"
	"runtime"
	"testing"
	"time"
	"unsafe"
)

// Unlimited returns cfg with NoLimit and Off instead of the defaults.
func Unlimited(cfg Config) Config {
	off := Config{
		QueueFrames: NoLimit, QueueBytes: NoLimit, QueueGrace: Off, QueueTotalBytes: NoLimit, MaxClientsPerUser: NoLimit,
		FanOut: NoLimit, GapSpread: Off, HistoryPerUser: Off, HistoryAge: Off, HistoryBytes: Off,
	}
	got, want := reflect.ValueOf(&cfg).Elem(), reflect.ValueOf(off)
	for i := range got.NumField() {
		if got.Field(i).IsZero() {
			got.Field(i).Set(want.Field(i))
		}
	}
	return cfg
}

// PendingBroadcasts is how many broadcasts some clients have yet to be handed.
func PendingBroadcasts(h *Hub) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.broadcasts.pending)
}

// HandedOut waits until every client has what was broadcast so far.
func HandedOut(h *Hub) {
	for pending := true; pending; runtime.Gosched() {
		h.mu.Lock()
		pending = h.broadcasts.running
		h.mu.Unlock()
	}
}

// PauseSweep keeps the sweep from running, or starts it.
func PauseSweep(h *Hub, paused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.history.(*userHistory).sweeper
	if s.active = paused; !paused {
		s.schedule()
	}
}

// StepWallClock makes a hub as one whose wall clock was stepped after its start: what it
// has read of that clock differs by the step from what the clock would have shown then,
// its readings of the monotonic clock do not. Time has no method for that: the
// seconds of a Time with a monotonic reading are in its first word, from bit 30 on.
func StepWallClock(t *testing.T, h *Hub, by time.Duration) {
	stepped := h.born
	*(*uint64)(unsafe.Pointer(&stepped)) -= uint64(by/time.Second) << 30
	if stepped.Sub(h.born) != 0 || h.born.Round(0).Sub(stepped.Round(0)) != by {
		t.Fatal("a Time is not laid out as expected")
	}
	h.born = stepped
}
