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

// PendingBroadcasts returns how many broadcasts have not been enqueued for all clients.
func PendingBroadcasts(h *Hub) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.broadcasts.pending)
}

// AwaitBroadcasts waits until all broadcasts have been enqueued for all clients.
func AwaitBroadcasts(h *Hub) {
	for pending := true; pending; runtime.Gosched() {
		h.mu.Lock()
		pending = h.broadcasts.running
		h.mu.Unlock()
	}
}

// PauseSweep prevents the sweep from running, or starts it.
func PauseSweep(h *Hub, paused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &h.history.(*userHistory).sweeper
	if s.active = paused; !paused {
		s.schedule()
	}
}

// StepWallClock simulates that the wall clock was set after the start of a hub: it shifts the wall clock
// reading that the hub has stored, but not the monotonic one. time.Time does not have a method for this.
// It stores the seconds of a time with a monotonic reading in its first word, from bit 30 on.
func StepWallClock(t *testing.T, h *Hub, by time.Duration) {
	stepped := h.born
	*(*uint64)(unsafe.Pointer(&stepped)) -= uint64(by/time.Second) << 30
	if stepped.Sub(h.born) != 0 || h.born.Round(0).Sub(stepped.Round(0)) != by {
		t.Fatal("time.Time does not have the expected layout")
	}
	h.born = stepped
}

// RingBytes returns the memory of the ring, RingEntries the number of its entries, and RingLowWater the number of the
// newest message that it has dropped.
func RingBytes(h *PubSub) int64     { h.mu.Lock(); defer h.mu.Unlock(); return h.ring.bytes }
func RingEntries(h *PubSub) int     { h.mu.Lock(); defer h.mu.Unlock(); return h.ring.entries }
func RingLowWater(h *PubSub) uint64 { h.mu.Lock(); defer h.mu.Unlock(); return h.ring.lowWater }

// LimitRingSearch sets how many entries a search of the ring finds at most.
func LimitRingSearch(h *PubSub, n int) { h.mu.Lock(); defer h.mu.Unlock(); h.ring.maxFound = n }

// Doubts returns how many doubts a hub keeps.
func Doubts(p *PubSub) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.doubts.all)
}

const MaxArrivals = maxArrivals

// CapacityFor returns for how many clients of a recipient there is memory.
func CapacityFor(h *Hub, to Recipient) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cap(h.owners.get(to).clients)
}

// SkipBroadcasts simulates that n broadcasts for clients that do not exist any more were distributed.
func SkipBroadcasts(h *Hub, n uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.broadcasts.pending) > 0 {
		panic("broadcasts are pending")
	}
	h.broadcasts.newest += n
}
