package topology

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// Activity records when bytes last arrived, and how many. It does not record replies, because a part of a large
// reply on a slow network is a sign of life too. Reads are also less frequent than messages. Safe
// for concurrent use.
type Activity struct {
	epoch   time.Time    // immutable
	last    atomic.Int64 // ns after epoch
	bytes   atomic.Int64
	reading atomic.Bool // a read is in progress
}

// Idle returns for how long nothing has arrived while a read is in progress; 0 without a read. On a
// busy host, the messages of one read may take many seconds to process while more are in the
// socket's buffer: then the peer is not idle.
func (a *Activity) Idle() time.Duration {
	if !a.reading.Load() {
		return 0
	}
	return time.Since(a.epoch) - a.Last()
}

// Last returns when bytes last arrived, as the time since the connection was made.
func (a *Activity) Last() time.Duration { return time.Duration(a.last.Load()) }

// Bytes returns how many bytes have arrived.
func (a *Activity) Bytes() int64 { return a.bytes.Load() }

// activeConn records each read that returned bytes.
type activeConn struct {
	net.Conn
	activity *Activity
}

func (c *activeConn) Read(b []byte) (int, error) {
	c.activity.reading.Store(true)
	defer c.activity.reading.Store(false) // after last
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.activity.bytes.Add(int64(n))
		c.activity.last.Store(int64(time.Since(c.activity.epoch)))
	}
	return n, err
}

// patientConn limits the time without any bytes, while go-redis limits the time of a whole reply. On a
// slow network, many large entries take longer than that: the reply would be abandoned and
// requested again forever.
type patientConn struct {
	net.Conn
	ctx      context.Context // its end stops reading, after the next bytes or when patience has passed
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
