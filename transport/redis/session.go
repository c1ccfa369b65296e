package redis

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// A session keeps a feed connected to Redis until its context ends. Each connection is a
// generation: it is opened and probed. When it ends, the next one replaces it after a
// pause. Both feeds use it.
type session struct {
	// Immutable after the feed was made.
	server     *topology.Server
	key        string // of the stream; "": pub/sub
	probeEvery time.Duration
	backoffMin time.Duration
	backoffMax time.Duration
	report     *reporter
	fault      func(err error, live bool) *topology.Fault // says why a connection ended

	started atomic.Bool
	count   counters

	hurry chan struct{} // one slot; makes the next probe due, except with Sentinels, which are asked every 2 s

	// asking is held while a new connection looks up the server: there is only one at a time.
	asking  sync.Mutex
	servers topology.Servers // guarded by asking
}

// A connection is what a feed does in one generation. All methods but probe are called from the
// goroutine that called run.
type connection interface {
	// open connects and subscribes. It returns when Redis has confirmed the subscription.
	open(ctx context.Context) error
	// describe is called after open. It returns attributes of the server for the log, and its role, or
	// "" if the role does not matter.
	describe() (role string, attrs []any)
	// receive passes on what Redis sends until the connection ends, and returns the reason.
	receive(ctx context.Context) error
	// addr is the address of the server.
	addr() string
	// probe checks once whether a new connection reaches the same server. An error ends this
	// connection. Another goroutine calls it, while receive runs.
	probe(ctx context.Context) error
	// urgent reports whether the next probe is due after topology.AskEvery. The goroutine of probe calls it.
	urgent() bool
	// close is called last, even if open has failed.
	close()
}

func newSession(public *Server, key string, logger *slog.Logger, probeEvery, backoffMin, backoffMax time.Duration) session {
	server := public.topology()
	return session{
		server: server, key: key, probeEvery: probeEvery, backoffMin: backoffMin, backoffMax: backoffMax,
		report: newReporter(logger, server), fault: server.Fault, hurry: make(chan struct{}, 1),
	}
}

// start is called first by Run.
func (s *session) start() error {
	if s.started.Swap(true) {
		return errors.New("Run can be called only once")
	}
	return nil
}

// run makes one connection after another until ctx ends.
func (s *session) run(ctx context.Context, next func(end context.CancelCauseFunc) connection) {
	pauses := pause.Backoff{Min: s.backoffMin, Max: s.backoffMax}
	for {
		lived, err := s.generation(ctx, next)
		if ctx.Err() != nil {
			return
		}
		live := lived > 0
		s.report.down(s.fault(err, live), live)
		// Only a subscription that lasted resets the backoff. Otherwise the feed would connect ten
		// times per second to a Redis that closes each connection immediately.
		if lived > 5*s.backoffMax {
			pauses.Reset()
		}
		if !pause.Sleep(ctx, pauses.Next()) {
			return
		}
	}
}

// generation makes one connection and reads until it ends. It returns how long the subscription
// lasted, 0 if it was never confirmed, and why the connection ended.
func (s *session) generation(ctx context.Context, next func(end context.CancelCauseFunc) connection) (lived time.Duration, err error) {
	ctx, end := context.WithCancelCause(ctx)
	c := next(end)
	var probing sync.WaitGroup
	defer c.close()
	defer probing.Wait()
	defer end(nil)
	if err = c.open(ctx); err == nil {
		since := time.Now()
		s.server.Renew() // older connections may go to another server
		s.count.connected.Store(true)
		role, attrs := c.describe()
		s.report.subscribed(s.count.generation.Add(1), role, attrs...)
		probing.Go(func() { s.probeLoop(ctx, c, end) })
		err = c.receive(ctx)
		lived = time.Since(since)
	}
	s.count.connected.Store(false)
	s.server.Renew()
	if cause := context.Cause(ctx); cause != nil {
		err = cause // the reason for closing the socket; err only says that it is closed
	}
	return lived, err
}

// probeLoop regularly checks whether the address still leads to the server of the connection. After
// a soft failover it does not: the old primary keeps its connections and replies to PING, but
// messages are published elsewhere.
func (s *session) probeLoop(ctx context.Context, c connection, end context.CancelCauseFunc) {
	for s.awaitProbe(ctx, c) {
		if err := c.probe(ctx); err != nil {
			end(err)
			return
		}
	}
}

// awaitProbe waits until the next probe is due, and returns false if ctx ends first. With Sentinels
// it returns early if they report another primary: they do so as soon as it is promoted, while the
// old one may keep its connections and role for 10 s more.
func (s *session) awaitProbe(ctx context.Context, c connection) bool {
	d := pause.Jitter(s.probeEvery)
	if c.urgent() {
		d = min(d, pause.Jitter(topology.AskEvery))
	}
	if !s.server.HasSentinels() {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
		case <-s.hurry:
		}
		return true
	}
	for end := time.Now().Add(d); ; {
		left := time.Until(end)
		if !pause.Sleep(ctx, min(left, pause.Jitter(topology.AskEvery))) {
			return false
		}
		if left <= topology.AskEvery {
			return true
		}
		// The next probe gets the same error, and logs it.
		if addr, err := s.server.LocatePrimary(ctx); err == nil && addr != c.addr() {
			return true
		}
	}
}

// lookUp makes a new connection and returns the identity of the server.
func (s *session) lookUp(ctx context.Context) (found topology.Identity, err error) {
	err = s.server.NewConn(ctx, topology.Target{Key: s.key}, func(ctx context.Context, cn *goredis.Conn) (err error) {
		found, err = topology.Introduce(ctx, cn, s.missing)
		return err
	}).Use()
	return found, err
}

// redialsPerInterval is how many connections per probe interval are made to find a server that
// forwards the probe to the subscription.
const redialsPerInterval = 30

// severalServers reports whether the server that a new connection has reached is one of several
// behind the same address. known means that another recent connection has reached it too.
func (s *session) severalServers(ctx context.Context, primary, found topology.Identity, known bool) bool {
	if !s.server.Fixed() || !primary.IsOther(found) {
		return false
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	if !known && !s.servers.Several(ctx, s.probeEvery, found, s.lookUp) {
		return false
	}
	s.report.severalServers(s.server, primary, found)
	return true
}

// handleControl handles a control command, or the error of parsing it: its sender may be any client
// that is allowed to publish it.
func (s *session) handleControl(command Control, err error, handle func(Control)) {
	s.count.controlReceived.Add(1)
	if err != nil {
		s.count.controlMalformed.Add(1)
		s.report.malformedControl(err)
		return
	}
	handle(command)
}

func (s *session) missing(which acl.Permission, err error) {
	if s.key != "" {
		which = which.OfStream()
	}
	s.report.missing(which, s.server.UserName(), err, slog.LevelInfo) // servers without such a command are common
}
