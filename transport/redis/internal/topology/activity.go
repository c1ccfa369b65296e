package topology

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// Activity is when bytes last came in. Bytes rather than replies: a big reply
// on a slow line is a sign of life too, and a read is rarer than a message. It is safe for
// concurrent use.
type Activity struct {
	epoch   time.Time    // immutable
	last    atomic.Int64 // ns after epoch
	reading atomic.Bool  // a read is in progress
}

// Idle is for how long nothing has come although a read is in progress. One read may
// bring messages that take many seconds to hand over on a busy machine, with more
// behind them in the kernel: the peer is not idle then.
func (a *Activity) Idle() time.Duration {
	if !a.reading.Load() {
		return 0
	}
	return time.Since(a.epoch) - a.Last()
}

// Last is when bytes last came in, as the time since the connection was made.
func (a *Activity) Last() time.Duration { return time.Duration(a.last.Load()) }

// activeConn notes each read that brought something.
type activeConn struct {
	net.Conn
	activity *Activity
}

func (c *activeConn) Read(b []byte) (int, error) {
	c.activity.reading.Store(true)
	defer c.activity.reading.Store(false) // after last
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.activity.last.Store(int64(time.Since(c.activity.epoch)))
	}
	return n, err
}

// patientConn bounds the time in which nothing comes rather than the time that a whole
// reply takes, as go-redis does: many big entries on a slow line take longer than the
// timeout of a reply, and would be requested and abandoned forever.
type patientConn struct {
	net.Conn
	ctx      context.Context // ends reading, if only when something comes, or patience ends
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
