package hub

import (
	"sync/atomic"
	"time"
)

// Stats is a snapshot of a hub. Counters only grow. A message counts as one frame per client
// that it is enqueued for; gaps are counted separately.
//
// While the hub is idle, FramesEnqueued = Deliveries + the sum of FramesDiscarded + FramesQueued.
type Stats struct {
	Clients         int
	Users           int // with a client
	Groups          int // with a client
	Connects        uint64
	Disconnects     map[Reason]uint64
	FramesEnqueued  uint64
	Replayed        uint64 // part of FramesEnqueued: sent to clients that resume
	FramesQueued    int64  // queued or being written
	Deliveries      uint64
	DeliveryBytes   uint64
	FramesDiscarded map[Reason]uint64 // still queued when their client ended
	Gaps            map[Gap]uint64    // gaps written to a socket
	HistoryEntries  int               // in the history
	HistoryBytes    int64             // of the history, estimated, including its overhead
	QueueBytes      int64             // of frames queued or being written, including gaps, excluding replayed frames; a shared frame counts once
	Resumes         map[Origin]uint64 // clients that came with an id

	// How far back a replay reaches at present: of users with a client of this hub, and of users without one, who come
	// from another hub.
	HistoryHere, HistoryElsewhere time.Duration
}

// Stats returns a snapshot. Its figures are read one after the other, so they add up only while
// the hub is idle.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	s := Stats{Clients: len(h.clients), Users: h.owners.users.present, Groups: h.owners.groups.present}
	s.HistoryEntries, s.HistoryBytes = h.history.size()
	s.HistoryHere, s.HistoryElsewhere = h.history.reach()
	h.mu.Unlock()
	n := &h.count
	s.Connects = n.connects.Load()
	s.FramesEnqueued = n.frames.Load()
	s.FramesQueued = n.queued.Load()
	s.Replayed = n.replayed.Load()
	s.Deliveries = n.deliveries.Load()
	s.DeliveryBytes = n.deliveryBytes.Load()
	s.QueueBytes = n.bytes.Load()
	s.Disconnects = make(map[Reason]uint64, reasonCount)
	s.FramesDiscarded = make(map[Reason]uint64, reasonCount)
	for _, c := range Reasons() {
		s.Disconnects[c] = n.disconnects[c].Load()
		s.FramesDiscarded[c] = n.discards[c].Load()
	}
	s.Gaps = make(map[Gap]uint64, gapCount)
	for _, g := range Gaps() {
		s.Gaps[g] = n.gaps[g].Load()
	}
	s.Resumes = make(map[Origin]uint64, originCount)
	for _, o := range Origins() {
		s.Resumes[o] = n.resumes[o].Load()
	}
	return s
}

// counters are updated where the counted event happens.
type counters struct {
	connects      atomic.Uint64
	disconnects   [reasonCount]atomic.Uint64
	frames        atomic.Uint64
	replayed      atomic.Uint64
	queued        atomic.Int64
	deliveries    atomic.Uint64
	deliveryBytes atomic.Uint64
	discards      [reasonCount]atomic.Uint64
	gaps          [gapCount]atomic.Uint64
	resumes       [originCount]atomic.Uint64
	bytes         atomic.Int64 // of all frames with holders, each counted once; without replayed ones
}

func (n *counters) enqueued(f *Frame) {
	if !f.Replayed && f.holders.Add(1) == 1 {
		n.bytes.Add(int64(len(f.Wire)))
	}
	if f.Gap == 0 {
		n.frames.Add(1)
		if f.Replayed {
			n.replayed.Add(1)
		}
		n.queued.Add(1)
	}
}

// released is called for frames that a client does not hold any more.
func (n *counters) released(frames []*Frame) {
	for _, f := range frames {
		if !f.Replayed && f.holders.Add(-1) == 0 {
			n.bytes.Add(-int64(len(f.Wire)))
		}
	}
}

func (n *counters) delivered(frames []*Frame) {
	var messages, bytes uint64
	for _, f := range frames {
		if f.Gap != 0 {
			n.gaps[f.Gap].Add(1)
			continue
		}
		messages++
		bytes += uint64(len(f.Wire))
	}
	if messages > 0 {
		n.deliveries.Add(messages)
		n.deliveryBytes.Add(bytes)
		n.queued.Add(-int64(messages))
	}
}

func (n *counters) discarded(frames []*Frame, reason Reason) {
	var messages uint64
	for _, f := range frames {
		if f.Gap == 0 {
			messages++
		}
	}
	if messages > 0 {
		n.discards[reason].Add(messages)
		n.queued.Add(-int64(messages))
	}
}
