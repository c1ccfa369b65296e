package sse

import (
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"usercast/hub"
	"usercast/internal/netpoll"
)

// A stream owns one response: its writer writes the client's frames, the pings and the final event,
// and closes the transport once.
//
// A stream has a writer only while writes are pending. An idle stream consists of this struct, its
// slot in the wheel, and the state of its transport.
type stream struct {
	// Immutable after start.
	handler   *Handler
	client    *hub.Client
	transport transport
	remote    string
	end       time.Duration // when the login expires or the maximum age is reached, by handler.clock; 0: never

	// Owned by the writer.
	last   hub.ID  // the last id that was written, unless own is set
	own    *string // the client's id, until another one is written; nil if it sent none
	broken bool    // a write has failed, possibly in the middle of a frame
	poll   poll

	// Immutable after start. They are declared next to workers so that they share a word: a stream takes 128 bytes.
	endReason  hub.Reason
	pingEvents bool

	workers atomic.Int32  // goroutines that use the stream, plus 1 until the end of the response; the last one cleans up
	started atomic.Bool   // transport is set
	pingDue atomic.Bool   // the writer must write a ping first
	written atomic.Int64  // time of the last write, by handler.clock
	done    chan struct{} // closed when the stream has ended; nil if the handler does not wait for that

	link link // guarded by handler.wheel
}

// A poll is the state of a long poll (poll=1).
type poll uint8

const (
	notPolling poll = iota // an ordinary stream
	polling                // has not sent a message or gap yet
	polled                 // has sent one, and ends when the queue is empty
)

// newStream returns a stream that can be registered in the hub before it has a transport.
// A new client counts as woken, which means that it has a writer: start runs as this writer.
func newStream(h *Handler, r *http.Request, q query, expires time.Time) *stream {
	s := &stream{handler: h, pingEvents: q.pingEvents, remote: r.RemoteAddr}
	s.workers.Store(2)
	if age := h.cfg.MaxAge; age > 0 {
		step := h.wheel.step
		s.end = h.clock() + age*4/5 + step + rand.N(max(age*2/5-step, 1)) // ±20 %; the wheel can tick one step early
		s.endReason = hub.ReasonMaxAge
	}
	if !expires.IsZero() {
		// One step later, because the wheel can tick a step early: before the expiry, a reconnect would be
		// accepted again. Expiries that would overflow are ignored.
		left := max(time.Until(expires), 0)
		if end := h.clock() + left + h.wheel.step; left < 1<<61 && (s.end == 0 || end < s.end) {
			s.end, s.endReason = end, hub.ReasonExpired
		}
	}
	if q.poll {
		s.poll = polling
		if end := h.clock() + pollTime + h.wheel.step; s.end == 0 || end < s.end {
			s.end, s.endReason = end, hub.ReasonPoll
		}
	}
	return s
}

// pollTime is how long a long poll waits for a message or gap.
const pollTime = 20 * time.Second

// maxPollRetry bounds the time after which a client polls again.
const maxPollRetry = time.Second

// opening returns the first block of the stream, which must have a client. If the client sent an
// id, the block contains that id, byte for byte: a gap may follow, and if the connection breaks before it, the client
// must resume from its own id (R8).
func (s *stream) opening(q query) []byte {
	s.last = s.client.Opening()
	if q.resume != "" {
		own := strings.Clone(q.resume) // does not keep the whole request in memory
		s.own = &own
	}
	text := string(s.appendLastID(nil))
	retry := s.handler.cfg.Retry
	if s.poll != notPolling {
		retry = min(retry, maxPollRetry*2/3)
	}
	return appendOpening(nil, jitter(retry), text)
}

// awaitEnd adds a registered stream to the wheel if it has an end. It is called before the head is
// written, because a slow peer must not delay the end.
func (s *stream) awaitEnd() {
	if s.end != 0 {
		s.handler.wheel.put(s, s.end-s.handler.clock())
	}
}

// fail ends a stream for which start was not called.
func (s *stream) fail(reason hub.Reason) {
	s.client.End(reason)
	s.workers.Store(0)
	s.handler.wheel.remove(s)
	s.handler.rechecks.drop(s)
	s.handler.ends.ended(s)
	s.handler.count(-1)
}

// start begins the stream after the head was written. If done is set, the caller must run watch.
func (s *stream) start(t transport) {
	s.transport = t
	s.written.Store(int64(s.handler.clock()))
	s.started.Store(true)
	s.rearm()
	if w, ok := t.(watchedTransport); ok {
		s.workers.Add(1)
		if s.done == nil {
			go s.watch(w) // before the first write: if that fails, watch receives the cause
		}
	}
	first := borrowWriter()
	defer first.giveBack()
	s.flush(first)
}

// watch waits until the peer disconnects.
func (s *stream) watch(t watchedTransport) {
	defer s.release()
	s.client.End(t.wait())
}

// Wake implements hub.Consumer.
func (s *stream) Wake() {
	s.workers.Add(1)
	s.handler.writers.add(s)
}

// Interrupt implements hub.Consumer.
func (s *stream) Interrupt() {
	if !s.started.Load() {
		return // the first Take returns the reason
	}
	s.workers.Add(1)
	go func() {
		defer s.release()
		s.transport.interrupt()
	}()
}

// maxWrites is the maximum number of writes to one stream before the writer continues with the next.
const maxWrites = 4

// flush is the writer. It runs from Wake until Take returns nothing, or passes the stream to
// another goroutine.
func (s *stream) flush(w *writer) {
	for n := 0; ; n++ {
		if n == maxWrites && !w.patient {
			s.handler.writers.add(s)
			return
		}
		if s.pingDue.Swap(false) && !s.ping(w) {
			return
		}
		answered := s.poll == polled
		frames, reason := s.client.Take(w.frames)
		if frames != nil {
			w.frames = frames
		}
		switch {
		case reason != 0:
			if s.finish(w, reason) {
				s.release()
				s.release() // for the response, which has ended
			}
			return
		case frames == nil:
			// A tick between the check above and Take did not wake a writer,
			// because this one was still running.
			if s.pingDue.Load() {
				s.client.Nudge()
			}
			if answered {
				s.client.FinishIfServed(hub.ReasonPoll) // wakes a writer to end the stream
			}
			s.release()
			return
		}
		if !s.send(w) {
			return
		}
	}
}

// send writes w.frames with as few system calls as possible.
func (s *stream) send(w *writer) bool {
	for _, f := range w.frames {
		w.bufs = append(w.bufs, f.Wire)
	}
	return s.write(w, (*stream).sent)
}

// sent accounts for frames of which n bytes were written.
func (s *stream) sent(w *writer, n int64, err error) {
	now, delivered := time.Now(), 0
	for _, f := range w.frames {
		if n -= int64(len(f.Wire)); n < 0 {
			break
		}
		delivered++
		if s.poll == polling {
			s.poll = polled
		}
		s.wrote(f.ID)
		if f.Gap == 0 && !f.Replayed {
			s.handler.delivery.Observe(now.Sub(f.Taken))
		}
	}
	if err != nil {
		s.client.End(s.transport.reason(err))
	}
	s.client.Settle(w.frames, delivered)
}

// write sends w.bufs, clears them, and calls then with the result. If the socket is full and the
// writer must not wait, it passes the stream to a separate goroutine and returns false.
func (s *stream) write(w *writer, then func(s *stream, w *writer, n int64, err error)) bool {
	all := w.bufs // the transport consumes w.bufs; what it pointed at must not be kept
	var n int64
	var err error
	if w.patient {
		n, err = s.transport.write(&w.bufs)
	} else if n, err = s.transport.tryWrite(&w.bufs); err == netpoll.ErrWouldBlock {
		own := &writer{patient: true, frames: slices.Clone(w.frames), bufs: slices.Clone(w.bufs), id: w.id, moved: w.moved, ping: w.ping}
		w.ping = nil // own.bufs refers to it
		w.forget(all)
		go s.writeRest(own, n, then)
		return false
	}
	w.forget(all)
	s.broken = s.broken || err != nil
	s.written.Store(int64(s.handler.clock()))
	then(s, w, n, err)
	return true
}

// writeRest completes a write that would have blocked a shared writer, and then runs flush.
func (s *stream) writeRest(own *writer, n int64, then func(s *stream, w *writer, n int64, err error)) {
	s.write(own, func(s *stream, w *writer, more int64, err error) { then(s, w, n+more, err) })
	s.flush(own)
}

// wrote records that an id of this hub was written.
func (s *stream) wrote(id hub.ID) { s.last, s.own = id, nil }

// isLastID reports whether the text of id is that of the last id that was written. From then on, the stream does not
// keep the text of the client's id.
func (s *stream) isLastID(id hub.ID) bool {
	if s.own != nil && s.text(id) == *s.own {
		s.wrote(id)
	}
	return s.own == nil && s.last == id
}

// appendLastID appends the last id that was written.
func (s *stream) appendLastID(dst []byte) []byte {
	if s.own != nil {
		return append(dst, *s.own...)
	}
	return s.handler.cfg.Hub.AppendID(dst, s.last)
}

// text returns the text of an id of this hub.
func (s *stream) text(id hub.ID) string { return string(s.handler.cfg.Hub.AppendID(nil, id)) }

// ping writes a ping (R17). It is an event with the current position if that differs from the last id, so that an idle
// stream resumes from there, and a comment otherwise. While a message or gap is pending, or the place of the client's id
// is not known, no position may be written. With ping=event, an event with the last id replaces the comment.
func (s *stream) ping(w *writer) bool {
	id, ok := s.client.Position()
	if !s.isIdle() {
		s.rearm()
		return true
	}
	w.id, w.moved = id, ok && !s.isLastID(id)
	var room [maxID]byte
	switch {
	case w.moved:
		w.ping = appendPing(w.ping[:0], s.handler.cfg.Hub.AppendID(room[:0], id))
	case s.pingEvents:
		w.ping = appendPing(w.ping[:0], s.appendLastID(room[:0]))
	default:
		w.ping = append(w.ping[:0], keepAlive...)
	}
	w.bufs = append(w.bufs, w.ping)
	return s.write(w, (*stream).pinged)
}

func (s *stream) pinged(w *writer, _ int64, err error) {
	if err != nil {
		s.client.End(s.transport.reason(err))
	} else if w.moved {
		s.wrote(w.id)
	}
	s.rearm()
}

// finish writes the last block, if any, and closes the stream. It does not write after a failed
// write, because the peer would read the block as part of a truncated frame. Its result is that of write.
func (s *stream) finish(w *writer, reason hub.Reason) bool {
	if last := s.lastBlock(reason); last != nil && !s.broken {
		w.bufs = append(w.bufs, last)
		return s.write(w, (*stream).closed)
	}
	s.transport.close()
	return true
}

// lastBlock returns the block to write before the end, or nil. It contains the position up to which
// all messages were sent. For a long poll without a message, it is a ping if the position is new.
func (s *stream) lastBlock(reason hub.Reason) []byte {
	name := byeReason(reason)
	if name == "" && (reason != hub.ReasonPoll || s.poll == polled) {
		return nil
	}
	id, ok := s.client.Position()
	switch {
	case name == "" && (!ok || s.isLastID(id)):
		return nil
	case name == "":
		return appendPing(nil, []byte(s.text(id)))
	case ok:
		return appendBye(nil, s.handler.byeRetry(reason), name, s.text(id))
	}
	return appendBye(nil, s.handler.byeRetry(reason), name, string(s.appendLastID(nil)))
}

// closed ends the stream after the last block, even if writing it has failed.
func (s *stream) closed(*writer, int64, error) {
	s.broken = true
	s.transport.close()
}

// byeRetry returns the delay after which a client reconnects when the hub has ended its stream. It is longer after
// a disconnect command, because the app may need a few seconds to destroy the session.
func (h *Handler) byeRetry(reason hub.Reason) time.Duration {
	if reason == hub.ReasonKicked {
		return minKickedRetry + rand.N(maxKickedRetry-minKickedRetry+1)
	}
	return h.retry()
}

const (
	minKickedRetry = 5 * time.Second
	maxKickedRetry = 10 * time.Second
)

// byeReason returns the reason to send in a bye event, or "" to send none, for example if the client disconnected.
func byeReason(reason hub.Reason) string {
	switch reason {
	case hub.ReasonExpired, hub.ReasonKicked, hub.ReasonMaxAge:
		return reason.String()
	case hub.ReasonDrain:
		return "draining"
	}
	return ""
}

// tick is called by the wheel when a ping or the end of the stream may be due.
func (s *stream) tick() {
	if s.end != 0 && s.handler.clock() >= s.end-s.handler.wheel.step {
		s.client.Finish(s.endReason)
		return
	}
	if !s.isIdle() { // something was written since
		s.rearm()
		return
	}
	// A writer can be blocked for a long time before it rearms, so the end must be on the wheel. Add
	// it before pingDue is set, so that the writer's later rearm replaces it and not the reverse.
	s.awaitEnd()
	s.pingDue.Store(true)
	s.client.Nudge() // the writer rearms
}

// untilTick returns the time until the next tick. Pings are sent up to 8 % early, at random, so that
// streams with simultaneous writes do not ping simultaneously. They are never late, because the timeouts of
// proxies and clients are based on the interval.
func (s *stream) untilTick() time.Duration {
	interval := s.handler.cfg.PingInterval
	d := interval - rand.N(interval/13+1) - s.idleTime()
	if s.end != 0 {
		d = min(d, s.end-s.handler.clock())
	}
	return max(d, 0)
}

// idleTime returns the time since the last write.
func (s *stream) idleTime() time.Duration {
	return s.handler.clock() - time.Duration(s.written.Load())
}

// isIdle reports whether a ping is due. The threshold is below the ping interval, because a tick is
// early by the random part of untilTick and by up to one step of the wheel.
func (s *stream) isIdle() bool { return s.idleTime() >= s.handler.cfg.PingInterval*9/10 }

// rearm schedules the next tick. It does nothing if the stream has ended.
func (s *stream) rearm() {
	s.handler.wheel.put(s, s.untilTick())
}

// release ends one worker of the stream. The last one ends the stream.
func (s *stream) release() {
	if s.workers.Add(-1) > 0 {
		return
	}
	s.transport.close()
	s.handler.wheel.remove(s)
	s.handler.rechecks.drop(s)
	s.handler.ends.ended(s)
	if s.done != nil {
		close(s.done)
	}
	s.handler.count(-1)
}
