package sse

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A connLimiter limits the number of connections of a Server, including streams, so that the
// process keeps file descriptors for Redis and for the admin listener. Otherwise, a flood of
// connections without requests could prevent the hub from connecting to Redis.
//
// Above the limit, new clients still receive a response, which is "busy" for a request for a
// stream. At most OverflowConns of these connections are open at a time, and only briefly.
//
// A nil limiter does not limit. Methods are safe for concurrent use.
type connLimiter struct {
	limit int64
	used  atomic.Int64 // slots in use
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
	sem      chan struct{} // holds one item per overflowConn
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
	if _, ok := conn.(*limitedConn); ok { // a fastListener has already acquired a slot for it
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

// A wrappedConn is embedded by the wrappers of connections. net/http calls CloseWrite if it has not read the
// whole request when it has sent the response. The client then receives the whole response before the connection
// is reset.
type wrappedConn struct{ net.Conn }

func (c wrappedConn) inner() net.Conn { return c.Conn }

func (c wrappedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// A limitedConn holds a slot until it is closed.
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

// OverflowConns is the maximum number of open connections above the limit of a Server.
const OverflowConns = 8

// overflowTime is the maximum time for each of them to send a request and to receive the response.
const overflowTime = time.Second

// An overflowConn is a connection above the limit. Deadlines cannot extend its time beyond until.
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
