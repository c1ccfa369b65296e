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

// A tcpConn is a connection that records whether its peer was unresponsive when a read or write timed
// out. A stream that owns its connection can ask the kernel itself. A stream of a shared HTTP/2
// connection is only informed that the connection is closed.
type tcpConn struct {
	*net.TCPConn
	writeTimeout time.Duration
	unresponsive atomic.Bool
	received     []byte // read from the connection before it became a tcpConn
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

// note checks why a read or write has failed.
func (c *tcpConn) note(err error) {
	if err != nil && (isTimeout(err) || errors.Is(err, os.ErrDeadlineExceeded)) && c.isUnresponsive() {
		c.unresponsive.Store(true)
	}
}

// isUnresponsive reports whether an acknowledgement of the peer is overdue: see reasonOf. It returns
// false if the peer has only stalled one of several streams.
func (c *tcpConn) isUnresponsive() bool {
	return isOverdue(c.TCPConn) && !acknowledges(c.TCPConn, ackAge(c.writeTimeout))
}

func (c *tcpConn) inner() net.Conn { return c.TCPConn }

// findConn returns conn, or the connection that wrappers of this package contain, if it has type T.
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

// connKey is the context key for the connection of a request, which a Server sets: a net.Conn or a
// *fastRequest. The response writer cannot provide it, because middleware may wrap the response
// writer.
type connKey struct{}

// connContext is the http.Server.ConnContext of a Server.
func connContext(ctx context.Context, conn net.Conn) context.Context {
	if over, ok := conn.(*tls.Conn); ok {
		conn = over.NetConn()
	}
	return context.WithValue(ctx, connKey{}, conn)
}

// connOf returns the connection of a request, if it has type T.
func connOf[T net.Conn](r *http.Request) (found T, ok bool) {
	conn, ok := r.Context().Value(connKey{}).(net.Conn)
	if !ok {
		return found, false
	}
	return findConn[T](conn)
}
