package sse

import "usercast/internal/histogram"

// A Histogram is a snapshot of a histogram of durations.
type Histogram = histogram.Snapshot

// Stats is a snapshot of a handler. Counters only grow.
type Stats struct {
	Rejects  map[string]uint64 // by reason; contains every reason
	Held     int               // temporary rejections that are held open now
	Delivery Histogram         // seconds from receiving a message from Redis to the end of its write
	Auth     Histogram         // seconds per authentication
}

// Stats returns a snapshot.
func (h *Handler) Stats() Stats {
	s := Stats{
		Rejects:  make(map[string]uint64, len(h.rejects)),
		Held:     h.held.len(),
		Delivery: h.delivery.Snapshot(),
		Auth:     h.auth.Snapshot(),
	}
	for reason, n := range h.rejects {
		s.Rejects[reason] = n.Load()
	}
	return s
}
