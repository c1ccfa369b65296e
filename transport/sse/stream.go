package sse

import (
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"usercast/hub"
)

// A wire carries the bytes of one stream to its browser.
type wire interface {
	// write sends all buffers and consumes them. Only one write runs at a time.
	// It fails when the peer takes nothing for the write timeout; n says how
	// many bytes were taken.
	write(bufs *net.Buffers) (n int64, err error)
	// interrupt makes a write under way, and every later one, fail soon.
	interrupt()
	// wait returns when the peer has left, or when the wire was closed, and why.
	wait() hub.Cause
	// cause says what an error of write means.
	cause(err error) hub.Cause
	// close ends the response; more than once does no harm.
	close()
}

// patience is how long a wire waits for its reader.
type patience struct {
	timeout time.Duration
	client  *hub.Client
}

// limit is t, or earlier: a connection closes within the timeout of its client's
// end, however slowly its reader takes what is left.
func (p patience) limit(t time.Time) time.Time {
	if ended := p.client.Ended(); !ended.IsZero() {
		if last := ended.Add(p.timeout); last.Before(t) {
			return last
		}
	}
	return t
}

// A stream is the sole owner of one response: it writes the client's frames, the
// pings and the goodbye, and closes the wire once.
//
// An idle stream is one goroutine, parked until the peer leaves, and one timer.
// A writer runs only while there is something to write.
type stream struct {
	// Immutable after start.
	handler    *Handler
	client     *hub.Client
	wire       wire
	pingEvents bool
	end        time.Time // when the maximum age is reached; zero: never
	remote     string

	// Owned by the writer.
	id   hub.ID // the newest that is on the wire
	bufs net.Buffers
	cut  bool // a write has failed, perhaps in the middle of a frame

	workers atomic.Int32  // goroutines that use the stream; the last one cleans up
	started atomic.Bool   // wire is set
	pingDue atomic.Bool   // the next thing that the writer does
	written atomic.Int64  // when something was last written, by handler.clock
	done    chan struct{} // closed at the very end; nil if nobody waits for that

	mu    sync.Mutex
	timer *time.Timer // guarded by mu; nil once the stream is over
}

// newStream is a stream that can be registered in the hub before it has a wire.
// Its first two workers are the writer, for the client counts as woken, and watch.
func newStream(h *Handler, r *http.Request, q query) *stream {
	s := &stream{handler: h, pingEvents: q.pingEvents, remote: r.RemoteAddr}
	s.workers.Store(2)
	if age := h.cfg.MaxAge; age > 0 {
		s.end = time.Now().Add(age*4/5 + rand.N(age*2/5+1)) // ±20 %
	}
	return s
}

// start takes over from the handler, which has just written the head. The caller
// sees to watch.
func (s *stream) start(w wire) {
	s.wire = w
	s.started.Store(true)
	s.id = s.client.Opening()
	s.written.Store(int64(s.handler.clock()))
	s.mu.Lock()
	s.timer = time.AfterFunc(s.untilTick(), s.tick)
	s.mu.Unlock()
	go s.flush()
}

// watch waits for the peer to leave.
func (s *stream) watch() {
	defer s.release()
	s.client.End(s.wire.wait())
}

// Wake implements hub.Consumer.
func (s *stream) Wake() {
	s.workers.Add(1)
	go s.flush()
}

// Interrupt implements hub.Consumer.
func (s *stream) Interrupt() {
	if !s.started.Load() {
		return // the first Take says so
	}
	s.workers.Add(1)
	go func() {
		defer s.release()
		s.wire.interrupt()
	}()
}

// flush is the writer: it runs from Wake to the Take that ends it.
func (s *stream) flush() {
	defer s.release()
	var frames []*hub.Frame
	for {
		if s.pingDue.Swap(false) {
			s.ping()
		}
		var cause hub.Cause
		frames, cause = s.client.Take(frames)
		switch {
		case cause != 0:
			s.goodbye(cause)
			return
		case frames == nil:
			// A tick between the check above and Take has found a writer at
			// work, and so has started none.
			if s.pingDue.Load() {
				s.client.Nudge()
			}
			return
		}
		s.send(frames)
	}
}

// send writes frames with as few system calls as can be.
func (s *stream) send(frames []*hub.Frame) {
	s.bufs = s.bufs[:0]
	for _, f := range frames {
		s.bufs = append(s.bufs, f.Wire)
	}
	n, err := s.write()
	now, delivered := time.Now(), 0
	for _, f := range frames {
		if n -= int64(len(f.Wire)); n < 0 {
			break
		}
		delivered++
		s.id = f.ID
		if f.Gap == 0 && !f.Replayed {
			s.handler.delivery.Observe(now.Sub(f.Taken))
		}
	}
	if err != nil {
		s.client.End(s.wire.cause(err))
	}
	s.client.Settle(frames, delivered)
}

// write sends s.bufs and forgets them.
func (s *stream) write() (int64, error) {
	all := s.bufs // the wire consumes s.bufs; what it pointed at must not be kept
	n, err := s.wire.write(&s.bufs)
	clear(all)
	s.bufs = nil
	if cap(all) <= idleBuffers {
		s.bufs = all[:0]
	}
	s.cut = s.cut || err != nil
	s.written.Store(int64(s.handler.clock()))
	return n, err
}

// idleBuffers is how many buffer headers an idle stream keeps: what one message
// needs.
const idleBuffers = 1

// ping writes a sign of life: the position if it has moved on without a frame
// for this stream, so that a quiet stream resumes from here, else a comment.
func (s *stream) ping() {
	if id, ok := s.client.Position(); s.isQuiet() {
		if !ok {
			id = s.id
		}
		s.bufs = append(s.bufs[:0], s.pingFrame(id))
		if _, err := s.write(); err != nil {
			s.client.End(s.wire.cause(err))
		} else {
			s.id = id
		}
	}
	s.rearm()
}

var commentPing = []byte(":\n\n")

func (s *stream) pingFrame(id hub.ID) []byte {
	moved := id != s.id
	switch {
	case s.pingEvents && moved:
		return mustAppendEvent(nil, Event{ID: id.String(), Name: "ping", Data: "{}"})
	case s.pingEvents:
		return mustAppendEvent(nil, Event{Name: "ping", Data: "{}"})
	case moved:
		return appendPosition(nil, 0, id)
	}
	return commentPing
}

// goodbye says why the hub ends a stream on purpose, and closes it. After a write
// that failed, it would become a part of the frame that was cut off.
func (s *stream) goodbye(cause hub.Cause) {
	if reason := byeReason(cause); reason != "" && !s.cut {
		bye := Event{Retry: s.handler.retry(), Name: "bye", Data: reasonJSON(reason)}
		if id, ok := s.client.Position(); ok && id != s.id {
			bye.ID = id.String()
		}
		s.bufs = append(s.bufs[:0], mustAppendEvent(nil, bye))
		s.write() // the stream ends either way
	}
	s.wire.close()
}

// byeReason is "" for the ends that the browser brought about.
func byeReason(cause hub.Cause) string {
	switch cause {
	case hub.ErrExpired, hub.ErrKicked, hub.ErrMaxAge:
		return cause.Error()
	case hub.ErrDrain:
		return "draining"
	}
	return ""
}

// tick runs when the stream may be due for a ping or for its end.
func (s *stream) tick() {
	if !s.end.IsZero() && !time.Now().Before(s.end) {
		s.client.Finish(hub.ErrMaxAge)
		return
	}
	if !s.isQuiet() { // something was written since
		s.rearm()
		return
	}
	s.pingDue.Store(true)
	s.client.Nudge() // the writer rearms
}

// untilTick is the time until there may be something to do. Pings come a little
// early, never late: the interval is what proxies and watchdogs are set to, and
// streams that were written to together should not ping together.
func (s *stream) untilTick() time.Duration {
	interval := s.handler.cfg.PingInterval
	d := interval - rand.N(interval/10+1) - s.quiet()
	if !s.end.IsZero() {
		d = min(d, time.Until(s.end))
	}
	return max(d, 0)
}

// quiet is how long nothing has been written.
func (s *stream) quiet() time.Duration {
	return s.handler.clock() - time.Duration(s.written.Load())
}

// isQuiet reports whether it is time for a ping.
func (s *stream) isQuiet() bool { return s.quiet() >= s.handler.cfg.PingInterval*9/10 }

func (s *stream) rearm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Reset(s.untilTick())
	}
}

// release ends one worker of the stream, and with the last one the stream.
func (s *stream) release() {
	if s.workers.Add(-1) > 0 {
		return
	}
	s.wire.close()
	s.mu.Lock()
	s.timer.Stop()
	s.timer = nil
	s.mu.Unlock()
	s.logEnd()
	if s.done != nil {
		close(s.done)
	} else { // detached: the server does not know
		s.handler.cfg.Crowd.leave()
	}
	s.handler.count(-1)
}

func (s *stream) logEnd() {
	s.handler.log.Info("stream ended",
		slog.String("user", clip(s.client.User())),
		slog.String("cause", s.client.Cause().Error()),
		slog.Duration("age", time.Since(s.client.Since()).Round(time.Millisecond)),
		slog.String("remote", s.remote))
}

// clip keeps a user id of a stranger's making from filling the log.
func clip(id string) string {
	const most = 100
	if len(id) > most {
		return id[:most] + "…"
	}
	return id
}
