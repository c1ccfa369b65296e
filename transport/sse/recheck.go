package sse

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"usercast/auth"
	"usercast/hub"
)

// rechecks authenticates streams once more that were opened shortly after a disconnect of their user: the
// app may have been asked before it had destroyed the session. The zero value is ready for use; methods are
// safe for concurrent use.
type rechecks struct {
	pending atomic.Int64 // len(streams): without any, drop takes no lock

	// Guarded by mu.
	mu      sync.Mutex
	streams map[*stream]*recheck
	bytes   int
}

// A recheck belongs to one open stream and ends with it.
type recheck struct {
	stream *stream
	ask    *auth.Recheck
	ctx    context.Context // until the stream ends
	cancel context.CancelFunc
	timer  *time.Timer
	bytes  int
}

const (
	// recheckDelay is from the opening of a stream to its check, and the longest time between two checks of
	// which the first got no answer.
	recheckDelay = 15 * time.Second

	// maxRecheckBytes bounds the headers that are held for all rechecks.
	maxRecheckBytes = 32 << 20
	recheckBytes    = 1 << 10 // of one, without its headers
)

// add schedules a recheck for a stream that has a client. It reports whether there is room for it.
func (p *rechecks) add(s *stream, ask *auth.Recheck) bool {
	r := &recheck{stream: s, ask: ask, bytes: recheckBytes + ask.Bytes}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bytes+r.bytes > maxRecheckBytes {
		return false
	}
	if p.streams == nil {
		p.streams = make(map[*stream]*recheck)
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.timer = time.AfterFunc(recheckDelay, func() { p.run(r) })
	p.streams[s] = r
	p.bytes += r.bytes
	p.pending.Store(int64(len(p.streams)))
	return true
}

// drop ends the recheck of a stream, if there is one.
func (p *rechecks) drop(s *stream) {
	if p.pending.Load() == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.streams[s]
	if r == nil {
		return
	}
	r.timer.Stop()
	r.cancel()
	delete(p.streams, s)
	p.bytes -= r.bytes
	p.pending.Store(int64(len(p.streams)))
}

// run asks once, and again later if there is no answer.
func (p *rechecks) run(r *recheck) {
	h := r.stream.handler
	p.mu.Lock()
	if p.streams[r.stream] != r {
		p.mu.Unlock()
		return
	}
	h.count(+1) // while the stream is counted
	p.mu.Unlock()
	defer h.count(-1)

	start := time.Now()
	id, err := r.ask.Ask(r.ctx)
	switch {
	case r.ctx.Err() != nil: // the stream has ended
	case err == nil && id.User == r.stream.client.User():
		p.drop(r.stream)
	case err == nil || auth.IsPermanent(err):
		h.log.Debug("login has ended, closing stream", slog.String("user", clip(r.stream.client.User())), slog.Any("error", err))
		p.drop(r.stream)
		r.stream.client.Finish(hub.ReasonKicked)
	default:
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.streams[r.stream] == r {
			next := recheckDelay*2/3 + rand.N(recheckDelay/3)
			r.timer.Reset(max(next-time.Since(start), 0))
		}
	}
}
