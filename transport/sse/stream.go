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

// A stream is the sole owner of one response: its writer writes the client's frames,
// the pings and the goodbye, and closes its transport once.
//
// A stream has a writer only while there is something to write. An idle one is this
// struct, its place on the wheel, and what its transport needs.
type stream struct {
	// Immutable after start.
	handler   *Handler
	client    *hub.Client
	transport transport
	remote    string
	end       time.Duration // of the log-in or, up to a step earlier, of the maximum age, by handler.clock; 0: never

	// Owned by the writer.
	last mark    // of the newest id that is on the wire
	own  *string // that id if it is not one of this hub: the client's own; nil: last is
	cut  bool    // a write has failed, perhaps in the middle of a frame
	poll poll

	// Immutable after start. These four bytes share a word with workers: a stream takes 128 bytes.
	endReason  hub.Reason
	pingEvents bool

	workers atomic.Int32  // goroutines that use the stream, and 1 up to the goodbye; the last one cleans up
	started atomic.Bool   // transport is set
	pingDue atomic.Bool   // the next thing that the writer does
	written atomic.Int64  // when something was last written, by handler.clock
	done    chan struct{} // closed at the very end; nil if nobody waits for that

	link link // guarded by handler.wheel
}

// A poll says how far a long poll (poll=1) is.
type poll uint8

const (
	notPolling poll = iota // the stream stays open
	polling                // it ends once it has sent a message or gap and all that is queued then
	polled                 // it has sent one
)

// A mark is what ids of one hub differ in.
type mark struct{ ms, seq uint64 }

func markOf(id hub.ID) mark { return mark{id.Ms, id.Seq} }

// newStream is a stream that can be registered in the hub before it has a transport.
// The client counts as woken, so it has a writer already, which start becomes.
func newStream(h *Handler, r *http.Request, q query, expires time.Time) *stream {
	s := &stream{handler: h, pingEvents: q.pingEvents, remote: r.RemoteAddr}
	s.workers.Store(2)
	if age := h.cfg.MaxAge; age > 0 {
		step := h.wheel.step
		s.end = h.clock() + age*4/5 + step + rand.N(max(age*2/5-step, 1)) // ±20 %, a step early included
		s.endReason = hub.ReasonMaxAge
	}
	if !expires.IsZero() {
		// Not earlier: the browser would come back and be let in once more. What is centuries away is never.
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

// pollTime is how long a long poll waits for something to send.
const pollTime = 20 * time.Second

// maxPollRetry bounds the time after which a client polls again.
const maxPollRetry = time.Second

// opening is the block that the stream begins with, once it has a client. It carries the
// client's own id if it sent one: a connection that breaks before the gap that may follow must be resumed from there.
func (s *stream) opening(q query) []byte {
	id := s.client.Opening()
	text := id.String()
	if q.resume != "" {
		text = q.resume
	}
	s.last = markOf(id)
	if id == hub.UnknownID {
		own := strings.Clone(text) // not the whole request
		s.own = &own
	}
	retry := s.handler.cfg.Retry
	if s.poll != notPolling {
		retry = min(retry, maxPollRetry*2/3)
	}
	return appendOpening(nil, jitter(retry), text)
}

// awaitEnd puts a registered stream on the wheel if it has an end: that must not wait
// until a slow peer has read the head.
func (s *stream) awaitEnd() {
	if s.end != 0 {
		s.handler.wheel.put(s, s.end-s.handler.clock())
	}
}

// fail ends a stream that start was not called for.
func (s *stream) fail(reason hub.Reason) {
	s.client.End(reason)
	s.workers.Store(0)
	s.handler.wheel.remove(s)
	s.handler.rechecks.drop(s)
	s.handler.ends.ended(s)
	s.handler.count(-1)
}

// start takes over from the handler, which has just written the head. With done set, the
// caller sees to watch.
func (s *stream) start(t transport) {
	s.transport = t
	s.written.Store(int64(s.handler.clock()))
	s.started.Store(true)
	s.rearm()
	if w, ok := t.(watchedTransport); ok {
		s.workers.Add(1)
		if s.done == nil {
			go s.watch(w) // before the first write: why that fails is what this one hears
		}
	}
	first := borrowWriter()
	defer first.giveBack()
	s.flush(first)
}

// watch waits for the peer to leave.
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
		return // the first Take says so
	}
	s.workers.Add(1)
	go func() {
		defer s.release()
		s.transport.interrupt()
	}()
}

// maxWrites is how many writes of one stream come before those of the next.
const maxWrites = 4

// flush is the writer: it runs from Wake to the Take that ends it, or hands the
// stream to another goroutine.
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
			if s.goodbye(w, reason) {
				s.release()
				s.release() // it is over
			}
			return
		case frames == nil:
			// A tick between the check above and Take has found a writer at
			// work, and so has woken none.
			if s.pingDue.Load() {
				s.client.Nudge()
			}
			if answered {
				s.client.FinishIfServed(hub.ReasonPoll) // which wakes a writer for the end
			}
			s.release()
			return
		}
		if !s.send(w) {
			return
		}
	}
}

// send writes w.frames with as few system calls as can be.
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

// write sends w.bufs and forgets them; then says how that ended. It is false if the
// stream is another's: one whose socket is full and whose writer may not wait goes on
// in a goroutine of its own.
func (s *stream) write(w *writer, then func(s *stream, w *writer, n int64, err error)) bool {
	all := w.bufs // the transport consumes w.bufs; what it pointed at must not be kept
	var n int64
	var err error
	if w.patient {
		n, err = s.transport.write(&w.bufs)
	} else if n, err = s.transport.tryWrite(&w.bufs); err == netpoll.ErrWouldBlock {
		own := &writer{patient: true, frames: slices.Clone(w.frames), bufs: slices.Clone(w.bufs), id: w.id, moved: w.moved}
		w.forget(all)
		go s.goOn(own, n, then)
		return false
	}
	w.forget(all)
	s.cut = s.cut || err != nil
	s.written.Store(int64(s.handler.clock()))
	then(s, w, n, err)
	return true
}

// goOn writes the rest of what a hurried writer has begun, and all that follows.
func (s *stream) goOn(own *writer, n int64, then func(s *stream, w *writer, n int64, err error)) {
	s.write(own, func(s *stream, w *writer, more int64, err error) { then(s, w, n+more, err) })
	s.flush(own)
}

// wrote notes that an id of this hub is on the wire.
func (s *stream) wrote(id hub.ID) { s.last, s.own = markOf(id), nil }

// isOnWire reports whether id is the newest that is on the wire.
func (s *stream) isOnWire(id hub.ID) bool { return s.own == nil && s.last == markOf(id) }

// lastID is the newest id that is on the wire. here is any id of this hub.
func (s *stream) lastID(here hub.ID) string {
	if s.own != nil {
		return *s.own
	}
	here.Ms, here.Seq = s.last.ms, s.last.seq
	return here.String()
}

// ping writes a sign of life: the position if it has moved on without a frame
// for this stream, so that a quiet stream resumes from here, else a comment.
func (s *stream) ping(w *writer) bool {
	id, ok := s.client.Position()
	if !s.isQuiet() {
		s.rearm()
		return true
	}
	w.id, w.moved = id, ok && !s.isOnWire(id)
	w.bufs = append(w.bufs, s.pingFrame(w))
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

func (s *stream) pingFrame(w *writer) []byte {
	switch {
	case w.moved:
		return appendPing(nil, w.id.String())
	case s.pingEvents:
		return appendPing(nil, s.lastID(w.id))
	}
	return keepAlive
}

// goodbye says why the hub ends a stream on purpose, and closes it. After a write
// that failed, it would become a part of the frame that was cut off.
func (s *stream) goodbye(w *writer, reason hub.Reason) bool {
	if last := s.lastBlock(reason); last != nil && !s.cut {
		w.bufs = append(w.bufs, last)
		return s.write(w, (*stream).closed)
	}
	s.transport.close()
	return true
}

// lastBlock is what is written before the end, with the position up to which the stream was
// served; nil: nothing. A long poll that ends says no more than its position, if that is new.
func (s *stream) lastBlock(reason hub.Reason) []byte {
	name := byeReason(reason)
	if name == "" && (reason != hub.ReasonPoll || s.poll == polled) {
		return nil
	}
	id, ok := s.client.Position()
	switch {
	case name == "" && (!ok || s.isOnWire(id)):
		return nil
	case name == "":
		return appendPing(nil, id.String())
	case ok:
		return appendBye(nil, s.handler.byeRetry(reason), name, id.String())
	}
	return appendBye(nil, s.handler.byeRetry(reason), name, s.lastID(id))
}

// closed ends the stream, however the goodbye has ended: nothing may follow it.
func (s *stream) closed(*writer, int64, error) {
	s.cut = true
	s.transport.close()
}

// byeRetry is when a client whose stream the hub ended is to come back. After a disconnect, the app may
// need some seconds until it has destroyed the session.
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

// byeReason is "" for the ends that the browser brought about.
func byeReason(reason hub.Reason) string {
	switch reason {
	case hub.ReasonExpired, hub.ReasonKicked, hub.ReasonMaxAge:
		return reason.String()
	case hub.ReasonDrain:
		return "draining"
	}
	return ""
}

// tick runs when the stream may be due for a ping or for its end.
func (s *stream) tick() {
	if s.end != 0 && s.handler.clock() >= s.end-s.handler.wheel.step {
		s.client.Finish(s.endReason)
		return
	}
	if !s.isQuiet() { // something was written since
		s.rearm()
		return
	}
	// A writer may be at work for long and rearm only then. The ping is due after the
	// stream is on the wheel: so the writer's time replaces this one, not the reverse.
	s.awaitEnd()
	s.pingDue.Store(true)
	s.client.Nudge() // the writer rearms
}

// untilTick is the time until there may be something to do. Pings come a little
// early, never late: the interval is what proxies and watchdogs are set to, and
// streams that were written to together should not ping together.
func (s *stream) untilTick() time.Duration {
	interval := s.handler.cfg.PingInterval
	d := interval - rand.N(interval/13+1) - s.quiet()
	if s.end != 0 {
		d = min(d, s.end-s.handler.clock())
	}
	return max(d, 0)
}

// quiet is how long nothing has been written.
func (s *stream) quiet() time.Duration {
	return s.handler.clock() - time.Duration(s.written.Load())
}

// isQuiet reports whether it is time for a ping: not sooner than the earliest tick,
// which is a step of the wheel before its time.
func (s *stream) isQuiet() bool { return s.quiet() >= s.handler.cfg.PingInterval*9/10 }

// rearm puts the stream on the wheel, until it has ended: a tick may be under way
// meanwhile.
func (s *stream) rearm() {
	s.handler.wheel.put(s, s.untilTick())
}

// release ends one worker of the stream, and with the last one the stream.
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
