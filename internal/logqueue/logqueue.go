// Package logqueue decouples a program from the reader of its log. Lines are queued, and a goroutine writes them, so that a
// full pipe does not block the program.
package logqueue

import (
	"bytes"
	"io"
	"sync"
	"time"
)

// maxQueued is the maximum size of the queue in bytes. It holds about 5,000 lines, as many as a hub logs when thousands of
// streams end at the same time. The goroutine can hold the same number of lines while it writes them.
const maxQueued = 1 << 20

// maxSpare is the maximum size in bytes of a buffer that is reused.
const maxSpare = 64 << 10

// A Writer queues lines for another writer and keeps their order. It drops lines when the queue is full or when the other
// writer returns an error. It is safe for concurrent use.
type Writer struct {
	// Immutable after New.
	to   io.Writer
	note func(lines uint64) []byte
	done chan struct{} // closed at the end of the goroutine

	// Guarded by mu, which the goroutine does not hold while it writes.
	mu      sync.Mutex
	wake    *sync.Cond // signals the goroutine that the state has changed
	queued  []byte
	full    bool   // a line did not fit; lines are dropped until the next write, so that the note marks the only missing part
	missing uint64 // number of lines dropped since the last note
	dropped uint64 // number of lines dropped since New
	closed  bool
}

// New returns a Writer to w and starts its goroutine, which ends after Close. Where lines were dropped, the Writer inserts
// the text that note returns for their number, as soon as w accepts data again. If note is nil, it inserts nothing.
func New(w io.Writer, note func(lines uint64) []byte) *Writer {
	q := &Writer{to: w, note: note, done: make(chan struct{})}
	q.wake = sync.NewCond(&q.mu)
	go q.run()
	return q
}

// Write queues a copy of p, which is one line or several lines that belong together. It never blocks and never returns an
// error.
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

// drop counts dropped lines. The caller holds q.mu.
func (q *Writer) drop(lines uint64) {
	q.missing += lines
	q.dropped += lines
}

// Dropped returns the number of dropped lines. A call of Write that did not fit counts as one line.
func (q *Writer) Dropped() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.dropped
}

// Close waits at most d until the queued lines are written, and reports whether they were. Lines that are written later are
// dropped. Close can be called several times.
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

// run writes queued lines until Close.
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

// take waits for lines and returns the queued ones, with the number of lines that were dropped after them. It queues the
// next lines in spare. It returns false after Close, when the queue is empty.
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

// failed counts lines that could not be written. A note that could not be written is repeated with the next line.
func (q *Writer) failed(lines []byte, missing uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.missing += missing
	q.drop(uint64(bytes.Count(lines, []byte("\n"))))
}
