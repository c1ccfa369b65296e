package sse

import "usercast/internal/histogram"

// Stats is a snapshot of a handler. Counters only grow.
type Stats struct {
	Rejects  map[string]uint64  // by reason; every reason is there
	Held     int                // temporary rejections whose end is put off now
	Delivery histogram.Snapshot // seconds from the hub taking a message to its write returning
	Auth     histogram.Snapshot // seconds to find out who is asking
}

// Stats takes a snapshot.
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
