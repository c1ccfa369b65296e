package redis

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// link is exactly one connection to Redis, under a go-redis PubSub. The PubSub
// is not only for subscribing: it is what dials in the caller's goroutine, where
// a pool would dial in one of its own that nobody can wait for.
type link struct {
	client *goredis.Client
	pubsub *goredis.PubSub
	read   activity

	// Set before its first use.
	patience time.Duration // how long a read may bring nothing; 0: as long as go-redis lets it
	waiting  func()        // called before each read; nil: not
	keep     int           // bytes of a string that are not cut; see replyConn

	// Set by the time that its first use returns.
	addr    string     // what it dialled
	conn    net.Conn   // replies that go-redis is not to read are read from here
	replies *replyConn // what go-redis reads passes through it
	state   string     // what a node said of its cluster: "ok", "fail"; "" where there is none, or it will not tell
	denied  error      // why it would not tell
	refuse  refusals

	unhook func() bool   // stops hangUp from being called when the context ends
	hungUp chan struct{} // closed by hangUp

	// Guarded by mu.
	mu      sync.Mutex
	dialled bool
	raw     net.Conn
	ended   bool
}

// errOneDial is what go-redis gets when it tries to reconnect behind our back.
var errOneDial = errors.New("a link dials once")

// newLink makes a link that dials when it is first used, and is cut when ctx
// ends. Use is called on the new connection, after log-in and before all else.
func (s *Server) newLink(ctx context.Context, use func(context.Context, *goredis.Conn) error) *link {
	return s.newLinkTo(ctx, target{}, use)
}

// newLinkFor is newLink to the node that owns a key. Only a cluster has several.
func (s *Server) newLinkFor(ctx context.Context, key string, use func(context.Context, *goredis.Conn) error) *link {
	return s.newLinkTo(ctx, target{key: key}, use)
}

func (s *Server) newLinkTo(ctx context.Context, to target, use func(context.Context, *goredis.Conn) error) *link {
	l := &link{hungUp: make(chan struct{})}
	l.read.epoch = time.Now()
	opt := s.options()
	opt.OnConnect = func(ctx context.Context, cn *goredis.Conn) (err error) {
		if l.state, l.denied, err = s.admit(ctx, cn, to); err != nil {
			return err
		}
		if err := s.selectDatabase(ctx, cn, to); err != nil {
			return err
		}
		return use(ctx, cn)
	}
	opt.Dialer = func(context.Context, string, string) (net.Conn, error) {
		if !l.mayDial() {
			return nil, errOneDial
		}
		far, err := s.dial(ctx, to)
		if err != nil {
			return nil, err
		}
		l.addr = far.addr
		if !l.adopt(far.raw) {
			return nil, context.Cause(ctx)
		}
		if l.patience > 0 {
			l.conn = &patientConn{Conn: far.conn, ctx: ctx, patience: l.patience}
		} else {
			l.conn = &activeConn{Conn: polled(far.conn), read: &l.read, waiting: l.waiting}
		}
		var conn net.Conn
		conn, l.replies = checkReplies(l.conn, l.keep)
		return conn, nil
	}
	l.client = goredis.NewClient(opt)
	l.client.AddHook(catchPanics{})
	l.client.AddHook(&l.refuse)
	l.pubsub = l.client.Subscribe(ctx)
	// Cutting the socket is the only thing that wakes a Receive.
	l.unhook = context.AfterFunc(ctx, l.hangUp)
	return l
}

// use makes the connection, for what newLink's caller does with it, and closes the link.
func (l *link) use(ctx context.Context) error {
	defer l.close()
	if err := l.pubsub.Ping(context.WithoutCancel(ctx)); err != nil { // what is used makes the connection
		return l.why(err)
	}
	return nil
}

// receive waits for the next message, confirmation or answer to a PING. Only what a
// subscriber is sent may come from the first call on, or an error reply.
func (l *link) receive(ctx context.Context) (received any, err error) {
	l.replies.pushes = true // all replies to commands have been read
	defer caught(&err)
	return l.pubsub.Receive(ctx)
}

// close ends the connection and returns when nothing of the link runs any more.
func (l *link) close() {
	if l.unhook() {
		l.hangUp()
	}
	<-l.hungUp
	// Both would report the socket as closed already; there is nothing to do then.
	_ = l.pubsub.Close()
	_ = l.client.Close()
}

// why is the reason behind an error of the link's first use.
func (l *link) why(err error) error {
	if l.refuse.err != nil {
		return l.refuse.err
	}
	return err
}

func (l *link) mayDial() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.dialled
	l.dialled = true
	return first
}

// adopt takes a fresh socket, unless the link has ended while it was dialled.
func (l *link) adopt(raw net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		_ = raw.Close()
		return false
	}
	l.raw = raw
	return true
}

func (l *link) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	if l.raw != nil {
		_ = l.raw.Close()
	}
	close(l.hungUp)
}

// activity knows when bytes last came in. Bytes rather than frames: a big frame
// on a slow line is a sign of life too, and a read is rarer than a message.
type activity struct {
	epoch   time.Time    // immutable
	last    atomic.Int64 // ns after epoch
	reading atomic.Bool  // a read is under way
}

// silence is for how long nothing has come although it was waited for. One read may
// bring messages that take many seconds to hand over on a busy machine, with more
// behind them in the kernel: that is no silence of the peer's.
func (a *activity) silence() time.Duration {
	if !a.reading.Load() {
		return 0
	}
	return time.Since(a.epoch) - time.Duration(a.last.Load())
}

// activeConn notes each read that brought something.
type activeConn struct {
	net.Conn
	read    *activity
	waiting func() // called before each read; nil: not
}

func (c *activeConn) Read(b []byte) (int, error) {
	if c.waiting != nil {
		c.waiting()
	}
	c.read.reading.Store(true)
	defer c.read.reading.Store(false) // after last
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.read.last.Store(int64(time.Since(c.read.epoch)))
	}
	return n, err
}

// patientConn bounds the silence of the other end rather than the time that a whole
// reply takes, as go-redis does: many big entries on a slow line take longer than any
// answer should, and would be asked for, and given up, for ever.
type patientConn struct {
	net.Conn
	ctx      context.Context // ends reading, if only when something comes, or patience does
	patience time.Duration
}

func (c *patientConn) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	if err := c.Conn.SetReadDeadline(time.Now().Add(c.patience)); err != nil {
		return 0, err
	}
	return c.Conn.Read(b)
}

func (c *patientConn) SetReadDeadline(time.Time) error { return nil }

// refusals keeps the reason why Redis turned a connection away at its first
// command, HELLO (protected mode, maxclients). go-redis takes any error reply to
// HELLO for an old Redis and goes on, and then there is only EOF to see.
type refusals struct {
	err error // set before the first use of the link returns
}

func (r *refusals) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (r *refusals) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		err := next(ctx, cmd)
		if goredis.HasErrorPrefix(err, "DENIED") || goredis.IsMaxClientsError(err) {
			r.err = err
		}
		return err
	}
}

func (r *refusals) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}
