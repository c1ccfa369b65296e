package sse

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A connLimiter limits the connections of a Server, streams and all others, so that
// the process keeps descriptors for Redis and for the admin listener. Past the limit
// new clients are still answered, OverflowConns at a time and quickly: a client that
// requests a stream receives "busy". Otherwise the kernel would keep them waiting
// without an answer, and a flood of connections without requests would cut the hub off from
// Redis.
//
// A nil limiter has no limit. Methods are safe for concurrent use.
type connLimiter struct {
	limit int64
	used  atomic.Int64 // slots
}

// newConnLimiter returns nil if limit is not positive.
func newConnLimiter(limit int) *connLimiter {
	if limit <= 0 {
		return nil
	}
	return &connLimiter{limit: int64(limit)}
}

// acquire takes a slot, if one is free.
func (l *connLimiter) acquire() bool {
	if l == nil {
		return true
	}
	if l.used.Add(1) > l.limit {
		l.used.Add(-1)
		return false
	}
	return true
}

func (l *connLimiter) release() {
	if l != nil {
		l.used.Add(-1)
	}
}

// isShort reports whether fewer than a tenth of the slots are free.
func (l *connLimiter) isShort() bool { return l != nil && l.used.Load() > l.limit-l.limit/10 }

// A limitListener gives each connection a slot, or makes it an overflowConn.
type limitListener struct {
	net.Listener
	settings *connSettings
	sem      chan struct{} // has an item of each overflowConn
	closed   chan struct{}
	once     sync.Once
}

func newLimitListener(l net.Listener, settings *connSettings) *limitListener {
	return &limitListener{Listener: l, settings: settings, sem: make(chan struct{}, OverflowConns), closed: make(chan struct{})}
}

func (l *limitListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if _, ok := conn.(*limitedConn); ok { // a fastListener has taken a slot for it
		return conn, nil
	}
	if l.settings.limiter.acquire() {
		return &limitedConn{wrappedConn: wrappedConn{conn}, settings: l.settings}, nil
	}
	select {
	case l.sem <- struct{}{}:
	case <-l.closed:
		conn.Close()
		return nil, net.ErrClosed
	}
	c := &overflowConn{wrappedConn: wrappedConn{conn}, until: time.Now().Add(overflowTime), sem: l.sem}
	c.SetDeadline(c.until)
	return c, nil
}

func (l *limitListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// A wrappedConn is what the wrappers of connections have in common. net/http calls CloseWrite after a
// response to a request of which it has not read everything: the client then receives the
// response and its end before the connection is reset.
type wrappedConn struct{ net.Conn }

func (c wrappedConn) inner() net.Conn { return c.Conn }

func (c wrappedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// A limitedConn has a slot until it is closed.
type limitedConn struct {
	wrappedConn
	settings *connSettings
	once     sync.Once
}

func (c *limitedConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.settings.limiter.release)
	return err
}

// OverflowConns is how many connections past the limit of a Server are open at most.
const OverflowConns = 8

// overflowTime is how long each of them may take to send a request and to receive the response.
const overflowTime = time.Second

// An overflowConn is a connection past the limit. No deadline extends its time.
type overflowConn struct {
	wrappedConn
	until time.Time
	sem   chan struct{}
	once  sync.Once
}

func (c *overflowConn) bound(t time.Time) time.Time {
	if t.IsZero() || t.After(c.until) {
		return c.until
	}
	return t
}

func (c *overflowConn) SetDeadline(t time.Time) error     { return c.Conn.SetDeadline(c.bound(t)) }
func (c *overflowConn) SetReadDeadline(t time.Time) error { return c.Conn.SetReadDeadline(c.bound(t)) }
func (c *overflowConn) SetWriteDeadline(t time.Time) error {
	return c.Conn.SetWriteDeadline(c.bound(t))
}

func (c *overflowConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.sem })
	return err
}
