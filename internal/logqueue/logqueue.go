// Package logqueue separates a program from whoever reads its log: a line is queued and
// written by a goroutine, so that a full pipe holds up nothing else.
package logqueue

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// maxQueued is how many bytes of lines may be queued: about 5,000 lines, which is what a
// hub logs when thousands of streams end at once. As many more can be with the goroutine
// that writes them.
const maxQueued = 1 << 20

// maxSpare is how large a buffer is that is kept for the next lines.
const maxSpare = 64 << 10

// A Writer queues lines for another writer, in order. It drops lines that do not fit, and
// lines that the other writer returns an error for. It is safe for concurrent use.
type Writer struct {
	// Immutable after New.
	to   io.Writer
	note func(lines uint64) []byte
	done chan struct{} // closed when the goroutine has ended

	// Guarded by mu, which is not held during a write.
	mu      sync.Mutex
	wake    *sync.Cond // there is something to do for the goroutine
	queued  []byte
	full    bool   // a line did not fit: drop all lines up to the next write, so that the note stands where they are missing
	missing uint64 // lines dropped since the last note
	dropped uint64 // lines dropped since New
	closed  bool
}

// New returns a Writer to w and starts its goroutine, which ends after Close. After lines
// were dropped, what note returns for their number is written in their place, as soon as w
// accepts data again; nil: nothing is.
func New(w io.Writer, note func(lines uint64) []byte) *Writer {
	q := &Writer{to: w, note: note, done: make(chan struct{})}
	q.wake = sync.NewCond(&q.mu)
	go q.run()
	return q
}

// Write queues a copy of p, which is one line or several that belong together. It never
// blocks, and always succeeds.
func (q *Writer) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		q.drop(1)
	case q.full || len(q.queued)+len(p) > maxQueued:
		q.full = true
		q.drop(1)
	default:
		q.queued = append(q.queued, p...)
	}
	q.wake.Signal()
	return len(p), nil
}

// drop counts lines that are lost. q.mu is held.
func (q *Writer) drop(lines uint64) {
	q.missing += lines
	q.dropped += lines
}

// Dropped returns the number of lines that were dropped so far. What was written in one
// call of Write and did not fit counts as one line.
func (q *Writer) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Close drops all later lines, waits at most d until the queued ones are written, and
// reports whether they are. It can be called several times.
func (q *Writer) Close(d time.Duration) bool {
	q.mu.Lock()
	q.closed = true
	q.wake.Signal()
	q.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-q.done:
		return true
	case <-timer.C:
		return false
	}
}

// run writes what is queued until Close.
func (q *Writer) run() {
	defer close(q.done)
	var spare []byte
	for {
		lines, missing, ok := q.take(spare)
		if !ok {
			return
		}
		all := lines
		if missing > 0 && q.note != nil {
			all = append(all, q.note(missing)...)
		}
		if n, err := q.to.Write(all); err != nil {
			q.failed(lines[min(n, len(lines)):], missing)
		}
		if spare = all[:0]; cap(spare) > maxSpare {
			spare = nil
		}
	}
}

// take waits for something to do and returns the queued lines, and how many were dropped
// after them. The next lines are queued in spare.
func (q *Writer) take(spare []byte) (lines []byte, missing uint64, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.queued) == 0 && !q.full && !q.closed {
		q.wake.Wait()
	}
	if len(q.queued) == 0 && !q.full {
		return nil, 0, false
	}
	lines, missing = q.queued, q.missing
	q.queued, q.missing, q.full = spare, 0, false
	return lines, missing, true
}

// failed counts lines that could not be written; the note about missing others could not
// either, and is due with the next line.
func (q *Writer) failed(lines []byte, missing uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.missing += missing
	q.drop(uint64(bytes.Count(lines, []byte("\n"))))
}
