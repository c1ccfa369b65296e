package topology

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/netpoll"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
)

// A Conn is exactly one connection to Redis, used by a go-redis PubSub. The PubSub is not only for
// subscribing: it dials in the caller's goroutine, while a pool dials in a separate goroutine that
// cannot be waited for.
type Conn struct {
	Activity Activity

	// Set before its first use.
	Patience time.Duration // maximum time without any bytes; 0: the timeouts of go-redis apply
	Keep     int           // bytes of a string that are not truncated; see resp.CheckedConn

	// Set when its first use returns.
	Addr   string // the address that was dialed
	State  string // cluster_state of the node: "ok", "fail"; "" if unknown or not a cluster
	Denied error  // why State is unknown
	// SlotsDenied is why Owner is unknown, if CLUSTER SLOTS is not allowed.
	SlotsDenied error
	slots       []slotRange

	client  *goredis.Client
	pubsub  *goredis.PubSub
	socket  net.Conn          // for callers that read replies without go-redis
	replies *resp.CheckedConn // between the socket and go-redis
	refused refusals
	ready   bool // the connection was made, and use has returned nil

	unhook func() bool   // stops hangUp from being called when the context ends
	hungUp chan struct{} // closed by hangUp

	// Guarded by mu.
	mu     sync.Mutex
	dialed bool
	raw    net.Conn
	ended  bool
}

// ErrEnded is the error after the connection has ended: go-redis has tried to dial again.
var ErrEnded = errors.New("a connection dials once")

// NewConn returns a connection that dials when it is first used, and is closed when ctx ends. After
// authentication, before anything else, use is called on the new connection.
func (s *Server) NewConn(ctx context.Context, to Target, use func(context.Context, *goredis.Conn) error) *Conn {
	c := &Conn{hungUp: make(chan struct{})}
	c.Activity.epoch = time.Now()
	opt := s.options()
	opt.OnConnect = func(ctx context.Context, cn *goredis.Conn) error {
		a, err := s.locator.admit(ctx, cn, to, c.Addr)
		c.State, c.Denied, c.SlotsDenied, c.slots = a.state, a.denied, a.slotsDenied, a.slots
		if err != nil {
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
	if !s.isSentinel {
		c.client.AddHook(rejectSentinels{})
	}
	c.pubsub = c.client.Subscribe(ctx)
	// Only closing the socket interrupts Receive.
	c.unhook = context.AfterFunc(ctx, c.hangUp)
	return c
}

// Owner returns the address of the primary that owns the slot of a channel, as the node reports it. It returns "" if
// that is not known, or not a cluster. It must not be called before the first use of the connection has returned.
func (c *Conn) Owner(channel string) string { return owner(c.slots, slotOf(channel), c.Addr) }

// Announced returns the addresses of all nodes that the node reports, without duplicates. It returns none if they are not
// known, or if this is not a cluster. It must not be called before the first use of the connection has returned.
func (c *Conn) Announced() (addrs []string) {
	for _, r := range c.slots {
		for _, node := range r.nodes {
			if addr := node.addr(c.Addr); addr != "" && !slices.Contains(addrs, addr) {
				addrs = append(addrs, addr)
			}
		}
	}
	return addrs
}

// Use makes the connection, which calls NewConn's use, and closes it.
func (c *Conn) Use() error {
	defer c.Close()
	return c.Ping() // the first command makes the connection
}

// Subscribe subscribes to channels. Like PSubscribe and Ping, it makes the connection if necessary, and
// returns when the command has been sent.
func (c *Conn) Subscribe(channels ...string) error {
	return c.why(c.pubsub.Subscribe(context.Background(), channels...))
}

// PSubscribe subscribes to patterns, with one command.
func (c *Conn) PSubscribe(patterns ...string) error {
	return c.why(c.pubsub.PSubscribe(context.Background(), patterns...))
}

// Ping sends a PING. It may be called while another goroutine is in Receive.
func (c *Conn) Ping(payload ...string) error {
	return c.why(c.pubsub.Ping(context.Background(), payload...))
}

// Receive waits for the next message, confirmation or reply to PING, until the context of the
// connection ends. From the first call on, only these and error replies are valid.
func (c *Conn) Receive() (received any, err error) {
	c.replies.ExpectPushes()
	defer catchPanic(&err)
	received, err = c.pubsub.Receive(context.Background())
	c.replies.Received()
	return received, err
}

// Ready reports whether Receive would return without reading from the socket, because the previous read
// returned at least one more complete reply.
func (c *Conn) Ready() bool { return c.replies.Ready() }

// Socket makes the connection for a caller that writes commands and reads replies itself. After it,
// Ping and Receive must not be called.
func (c *Conn) Socket() (net.Conn, error) {
	// PING makes the connection. An error reply, because PING is not allowed, does not matter.
	if err := c.client.Ping(context.Background()).Err(); err != nil && !(c.ready && acl.IsReply(err)) {
		return nil, c.why(err)
	}
	if !c.replies.Idle() { // it would be read as the reply to the next command
		return nil, BadReply("more data than requested")
	}
	return c.socket, nil
}

// Close closes the connection and returns when all its goroutines have ended.
func (c *Conn) Close() {
	if c.unhook() {
		c.hangUp()
	}
	<-c.hungUp
	// Both return an error because the socket is already closed.
	_ = c.pubsub.Close()
	_ = c.client.Close()
}

// why returns the reason for an error of the first command.
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

// adopt stores a new socket. If the connection has ended meanwhile, it closes the socket and returns
// false.
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
