package hub

import "time"

// A queue holds the frames of one client. It takes memory only while something is in it.
// All fields are guarded by Client.mu.
type queue struct {
	frames   []*Frame
	single   [1]*Frame // the memory of frames as long as it is not longer
	bytes    int       // of frames
	inFlight int       // bytes that were taken and not yet settled
	excess   *excess   // nil: the queue has not exceeded its bounds
}

// excess is about a queue that has exceeded its bounds.
type excess struct {
	since time.Time   // zero: it is within them again
	timer *time.Timer // nil: not set
}

// held is the bytes that the queue keeps in memory.
func (q *queue) held() int { return q.bytes + q.inFlight }

func (q *queue) push(f *Frame) {
	if q.frames == nil {
		q.frames = q.single[:0]
	}
	q.frames = append(q.frames, f)
	q.bytes += len(f.Wire)
}

// take returns all frames, or nil. The slice spent, if not nil, becomes the memory of the queue.
func (q *queue) take(spent []*Frame) (frames []*Frame) {
	if len(q.frames) == 0 {
		q.frames = nil // an idle client owns none
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
func (q *queue) settle(bytes int) { q.inFlight -= min(bytes, q.inFlight) } // after clear, nothing is left of them

// clear discards all frames.
func (q *queue) clear() { q.frames, q.single[0], q.bytes = nil, nil, 0 }

// fits reports whether f keeps the queue within its bounds. A frame that would be
// alone always fits: otherwise a message larger than the bound would end every client
// that it reaches.
func (q *queue) fits(f *Frame, cfg *Config) bool {
	return len(q.frames) == 0 || len(q.frames) < cfg.QueueFrames && q.bytes+len(f.Wire) <= cfg.QueueBytes
}

// mayExceed reports whether the queue may exceed its bounds for now, and calls expired if it
// still does after the grace. A burst comes in at a million messages per second, faster than
// the scheduler runs the consumer: a full queue alone does not prove that the reader is slow.
func (q *queue) mayExceed(grace time.Duration, expired func()) bool {
	if grace <= 0 {
		return false
	}
	if q.excess == nil {
		q.excess = new(excess)
	}
	if q.excess.since.IsZero() {
		q.excess.since = time.Now()
	}
	if q.excess.timer == nil {
		q.excess.timer = time.AfterFunc(grace, expired)
	}
	return true
}

// isExpired is for expired of mayExceed: it reports whether the queue has exceeded its bounds
// for the grace. If it was taken from and is full again, it calls expired later.
func (q *queue) isExpired(grace time.Duration, expired func()) bool {
	q.excess.timer = nil
	if q.excess.since.IsZero() {
		return false
	}
	rest := grace - time.Since(q.excess.since)
	if rest > 0 {
		q.excess.timer = time.AfterFunc(rest, expired)
	}
	return rest <= 0
}

// endExcess is called when the queue was taken from.
func (q *queue) endExcess() {
	if q.excess != nil {
		q.excess.since = time.Time{}
	}
}

// extendExcess gives a queue that exceeds its bounds another grace.
func (q *queue) extendExcess() {
	if q.excess != nil && !q.excess.since.IsZero() {
		q.excess.since = time.Now()
	}
}

// stop is called when nothing more will be pushed.
func (q *queue) stop() {
	q.endExcess()
	if q.excess != nil && q.excess.timer != nil {
		q.excess.timer.Stop()
	}
}
