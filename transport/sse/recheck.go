package sse

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"usercast/auth"
	"usercast/hub"
)

// rechecks authenticates streams again if they were opened shortly after a disconnect of their user. The first
// session check may have happened before the app had destroyed the session. The zero value is ready for use;
// methods are safe for concurrent use.
type rechecks struct {
	pending atomic.Int64 // len(streams); if it is 0, drop does not take the lock

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
	// recheckDelay is the time from the opening of a stream to its recheck, and the maximum time until the next
	// attempt if a recheck fails temporarily.
	recheckDelay = 15 * time.Second

	// maxRecheckBytes bounds the memory of all rechecks, which hold headers of requests.
	maxRecheckBytes = 32 << 20
	recheckBytes    = 1 << 10 // of one recheck, without its headers
)

// add schedules a recheck for a stream that has a client. It returns false if the limit is reached.
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

// drop cancels the recheck of a stream, if one is pending.
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

// run authenticates the stream, and schedules another attempt if that fails temporarily.
func (p *rechecks) run(r *recheck) {
	h := r.stream.handler
	p.mu.Lock()
	if p.streams[r.stream] != r {
		p.mu.Unlock()
		return
	}
	h.count(+1) // before the stream ends, so that the count cannot be 0 meanwhile
	p.mu.Unlock()
	defer h.count(-1)

	start := time.Now()
	id, err := r.ask.Ask(r.ctx)
	switch {
	case r.ctx.Err() != nil: // the stream has ended
	case err == nil && id.User == r.stream.client.User() && allows(id, r.stream.client):
		p.drop(r.stream)
	case err == nil || auth.IsPermanent(err):
		h.log.Debug("login has ended or changed, closing stream", slog.String("user", clip(r.stream.client.User())), slog.Any("error", err))
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

// allows reports whether a stream of the identity would receive the same messages as the client.
func allows(id auth.Identity, c *hub.Client) bool {
	groups := slices.Clone(id.Groups)
	slices.Sort(groups)
	current := c.Topics()
	topics, err := visible(current, id.Topics)
	return err == nil && (topics == nil) == (current == nil) && slices.Equal(slices.Compact(groups), c.Groups())
}
