package sse

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// A tcpListener accepts tcpConns.
type tcpListener struct {
	*net.TCPListener
	writeTimeout time.Duration
}

func (l tcpListener) Accept() (net.Conn, error) {
	conn, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &tcpConn{TCPConn: conn, writeTimeout: l.writeTimeout}, nil
}

// A tcpConn is a connection that remembers whether its peer had vanished when the kernel
// gave it up. A stream that owns its connection can ask the kernel itself; one that
// shares it over HTTP/2 only learns that it is closed.
type tcpConn struct {
	*net.TCPConn
	writeTimeout time.Duration
	vanished     atomic.Bool
	received     []byte // what was read of it before it became a tcpConn
}

func (c *tcpConn) Read(b []byte) (int, error) {
	if len(c.received) > 0 {
		n := copy(b, c.received)
		if c.received = c.received[n:]; len(c.received) == 0 {
			c.received = nil
		}
		return n, nil
	}
	n, err := c.TCPConn.Read(b)
	c.note(err)
	return n, err
}

func (c *tcpConn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	c.note(err)
	return n, err
}

// note checks why the connection has failed.
func (c *tcpConn) note(err error) {
	if err != nil && (isTimeout(err) || errors.Is(err, os.ErrDeadlineExceeded)) && c.isSilent() {
		c.vanished.Store(true)
	}
}

// isSilent reports whether an acknowledgement of the peer is overdue, see reasonOf. None is
// when only one of its streams has stalled.
func (c *tcpConn) isSilent() bool {
	return isOverdue(c.TCPConn) && !acknowledges(c.TCPConn, ackAge(c.writeTimeout))
}

func (c *tcpConn) inner() net.Conn { return c.TCPConn }

// findConn returns the connection of type T that conn is, or that wrappers of this package
// hide.
func findConn[T net.Conn](conn net.Conn) (found T, ok bool) {
	for {
		if found, ok = conn.(T); ok {
			return found, true
		}
		wrapper, ok := conn.(interface{ inner() net.Conn })
		if !ok {
			return found, false
		}
		conn = wrapper.inner()
	}
}

// connKey is the context key of the connection that a request came over, which a Server sets:
// a net.Conn, or a *fastRequest. The response writer cannot hold it, because middleware may
// wrap that; http.Server.ConnContext exists for the same reason.
type connKey struct{}

// connContext is the http.Server.ConnContext of a Server.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// connOf returns the connection of type T that a request came over.
func connOf[T net.Conn](r *http.Request) (found T, ok bool) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return found, false
	}
	return findConn[T](conn)
}
