package hub

import "time"

// A queue holds the frames of one client. An empty queue does not use extra memory. All fields are guarded by
// Client.mu.
type queue struct {
	frames   []*Frame
	single   [1]*Frame // backing array of frames while there is at most one
	bytes    int       // of frames
	inFlight int       // bytes that were taken and are not settled yet
	rare     *rare     // nil: the client is open, and the queue has never exceeded its bounds
}

// rare is the state of a queue that has exceeded its bounds, or whose client has ended. The other clients do not need
// memory for it.
type rare struct {
	exceeds bool          // the queue exceeds its bounds
	since   time.Duration // when that began, since Hub.born
	timer   *time.Timer   // nil: not set

	endedAt time.Duration // since Hub.born
	newest  ID            // of the hub when the client ended
}

// held returns the bytes that the queue keeps in memory.
func (q *queue) held() int { return q.bytes + q.inFlight }

func (q *queue) push(f *Frame) {
	if q.frames == nil {
		q.frames = q.single[:0]
	}
	q.frames = append(q.frames, f)
	q.bytes += len(f.Wire)
}

// endsWithSpread reports whether the last frame is a gap that waits to be spread.
func (q *queue) endsWithSpread() bool {
	n := len(q.frames)
	return n > 0 && q.frames[n-1].spread
}

// take returns all frames, or nil. The slice spent, if not nil, becomes the backing array of the queue.
func (q *queue) take(spent []*Frame) (frames []*Frame) {
	if len(q.frames) == 0 {
		q.frames = nil // an idle client does not keep a slice
		return nil
	}
	if len(q.frames) == 1 && &q.frames[0] == &q.single[0] {
		frames = append(spent[:0], q.single[0])
		q.single[0], q.frames = nil, nil
	} else {
		frames, q.frames, q.single[0] = q.frames, spent[:0], nil
	}
	q.inFlight += q.bytes
	q.bytes = 0
	q.endExcess()
	return frames
}

// settle accounts for bytes that were taken.
func (q *queue) settle(bytes int) { q.inFlight -= min(bytes, q.inFlight) } // after clear, inFlight may be smaller

// clear discards all frames.
func (q *queue) clear() { q.frames, q.single[0], q.bytes = nil, nil, 0 }

// fits reports whether the queue is within its bounds with f. A single frame always fits: otherwise a message larger
// than the bound would end every client that receives it.
func (q *queue) fits(f *Frame, cfg *Config) bool {
	return len(q.frames) == 0 || len(q.frames) < cfg.QueueFrames && q.bytes+len(f.Wire) <= cfg.QueueBytes
}

// mayExceed reports whether the queue may exceed its bounds for the grace period, and calls expired after it. A burst
// can reach a million messages per second, which is faster than the scheduler runs the consumer. So a full queue alone
// does not mean that the reader is slow.
//
// now is the time since Hub.born, here and below.
func (q *queue) mayExceed(now, grace time.Duration, expired func()) bool {
	if grace <= 0 {
		return false
	}
	if q.rare == nil {
		q.rare = new(rare)
	}
	if !q.rare.exceeds {
		q.rare.exceeds, q.rare.since = true, now
	}
	if q.rare.timer == nil {
		q.rare.timer = time.AfterFunc(grace, expired)
	}
	return true
}

// isExpired is called by the function expired of mayExceed. It reports whether the queue has exceeded its bounds for
// the whole grace period. If the queue was emptied meanwhile and is full again, it schedules another call.
func (q *queue) isExpired(now, grace time.Duration, expired func()) bool {
	q.rare.timer = nil
	if !q.rare.exceeds {
		return false
	}
	rest := grace - (now - q.rare.since)
	if rest > 0 {
		q.rare.timer = time.AfterFunc(rest, expired)
	}
	return rest <= 0
}

// endExcess is called after frames were taken.
func (q *queue) endExcess() {
	if q.rare != nil {
		q.rare.exceeds = false
	}
}

// extendExcess restarts the grace period of a queue that exceeds its bounds.
func (q *queue) extendExcess(now time.Duration) {
	if q.rare != nil {
		q.rare.since = now
	}
}

// stop is called when the client ends: no more frames will be pushed. newest is the newest entry of the hub.
func (q *queue) stop(now time.Duration, newest ID) {
	if q.rare == nil {
		q.rare = new(rare)
	}
	q.endExcess()
	if q.rare.timer != nil {
		q.rare.timer.Stop()
	}
	q.rare.endedAt, q.rare.newest = now, newest
}
