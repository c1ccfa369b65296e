package topology

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/netpoll"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
)

// A Conn is exactly one connection to Redis, under a go-redis PubSub. The PubSub
// is not only for subscribing: it dials in the caller's goroutine, while
// a pool would dial in a goroutine of its own that cannot be waited for.
type Conn struct {
	Activity Activity

	// Set before its first use.
	Patience time.Duration // how long a read may bring nothing; 0: as long as go-redis waits
	Keep     int           // bytes of a string that are not cut; see resp.CheckedConn

	// Set when its first use returns.
	Addr   string // what it dialed
	State  string // what a node says of its cluster: "ok", "fail"; "" if there is none or it is not known
	Denied error  // why State is not known

	client  *goredis.Client
	pubsub  *goredis.PubSub
	socket  net.Conn          // where replies are read that go-redis is not to read
	replies *resp.CheckedConn // between the socket and go-redis
	refused refusals
	ready   bool // it was made, and use has returned nil

	unhook func() bool   // stops hangUp from being called when the context ends
	hungUp chan struct{} // closed by hangUp

	// Guarded by mu.
	mu     sync.Mutex
	dialed bool
	raw    net.Conn
	ended  bool
}

// ErrEnded is the error of a use after the connection has ended: go-redis has tried to dial again.
var ErrEnded = errors.New("a connection dials once")

// NewConn makes a connection that dials when it is first used, and is closed when ctx
// ends. Use is called on the new connection, after authentication and before everything else.
func (s *Server) NewConn(ctx context.Context, to Target, use func(context.Context, *goredis.Conn) error) *Conn {
	c := &Conn{hungUp: make(chan struct{})}
	c.Activity.epoch = time.Now()
	opt := s.options()
	opt.OnConnect = func(ctx context.Context, cn *goredis.Conn) (err error) {
		if c.State, c.Denied, err = s.locator.admit(ctx, cn, to); err != nil {
			return err
		}
		if err := s.selectDatabase(ctx, cn, to); err != nil {
			return err
		}
		err = use(ctx, cn)
		c.ready = err == nil
		return err
	}
	opt.Dialer = func(context.Context, string, string) (net.Conn, error) {
		if !c.mayDial() {
			return nil, ErrEnded
		}
		far, err := s.locator.dial(ctx, to)
		if err != nil {
			return nil, err
		}
		c.Addr = far.addr
		if !c.adopt(far.raw) {
			return nil, context.Cause(ctx)
		}
		if c.Patience > 0 {
			c.socket = &patientConn{Conn: far.conn, ctx: ctx, patience: c.Patience}
		} else {
			c.socket = &activeConn{Conn: netpoll.ReadConn(far.conn), activity: &c.Activity}
		}
		var conn net.Conn
		conn, c.replies = resp.Check(c.socket, c.Keep)
		return conn, nil
	}
	c.client = goredis.NewClient(opt)
	c.client.AddHook(catchPanics{})
	c.client.AddHook(&c.refused)
	c.pubsub = c.client.Subscribe(ctx)
	// Nothing but closing the socket wakes a Receive.
	c.unhook = context.AfterFunc(ctx, c.hangUp)
	return c
}

// Use makes the connection, for what NewConn's use does with it, and closes it.
func (c *Conn) Use() error {
	defer c.Close()
	return c.Ping() // the first use makes the connection
}

// Subscribe subscribes to channels. Like PSubscribe and Ping it returns when the command is
// sent, and makes the connection if it is the first.
func (c *Conn) Subscribe(channels ...string) error {
	return c.why(c.pubsub.Subscribe(context.Background(), channels...))
}

// PSubscribe subscribes to a pattern.
func (c *Conn) PSubscribe(pattern string) error {
	return c.why(c.pubsub.PSubscribe(context.Background(), pattern))
}

// Ping sends a PING. It may be called while another goroutine is in Receive.
func (c *Conn) Ping(payload ...string) error {
	return c.why(c.pubsub.Ping(context.Background(), payload...))
}

// Receive waits for the next message, confirmation or reply to a PING. Only what a
// subscriber is sent may come from the first call on, or an error reply. The end of the
// connection's context ends it.
func (c *Conn) Receive() (received any, err error) {
	c.replies.ExpectPushes()
	defer catchPanic(&err)
	received, err = c.pubsub.Receive(context.Background())
	c.replies.Received()
	return received, err
}

// Ready reports whether Receive would return without reading from the socket: something has
// come together with what was received last, all of it.
func (c *Conn) Ready() bool { return c.replies.Ready() }

// Socket makes the connection for a caller that writes commands and reads replies itself. Ping
// and Receive must not be called after it.
func (c *Conn) Socket() (net.Conn, error) {
	// It makes the connection. Whether the command is allowed is not of interest.
	if err := c.client.Ping(context.Background()).Err(); err != nil && !(c.ready && acl.IsReply(err)) {
		return nil, c.why(err)
	}
	if !c.replies.Idle() { // it would be taken for the reply to the next command
		return nil, BadReply("more than was requested")
	}
	return c.socket, nil
}

// Close ends the connection and returns when nothing of it runs any more.
func (c *Conn) Close() {
	if c.unhook() {
		c.hangUp()
	}
	<-c.hungUp
	// Both would report the socket as closed already; nothing can be done then.
	_ = c.pubsub.Close()
	_ = c.client.Close()
}

// why is the reason behind an error of the first use.
func (c *Conn) why(err error) error {
	if err != nil && c.refused.err != nil {
		return c.refused.err
	}
	return err
}

func (c *Conn) mayDial() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.dialed
	c.dialed = true
	return first
}

// adopt takes over a new socket, unless the connection has ended while it was dialed.
func (c *Conn) adopt(raw net.Conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		_ = raw.Close()
		return false
	}
	c.raw = raw
	return true
}

func (c *Conn) hangUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.raw != nil {
		_ = c.raw.Close()
	}
	close(c.hungUp)
}
