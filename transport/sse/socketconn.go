package sse

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"usercast/internal/unixsocket"
)

// A socketListener accepts socketConns.
type socketListener struct {
	net.Listener // a *net.TCPListener or a *unixsocket.Listener
	unix         bool
	sendBuffer   int // set on each accepted socket; 0: it has inherited the options from the listener
	writeTimeout time.Duration
}

func (l socketListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if err := l.prepare(conn); err != nil {
		conn.Close()
		return nil, err
	}
	return &socketConn{socket: conn.(socket), writeTimeout: l.writeTimeout}, nil
}

// prepare sets the options of an accepted socket that it has not inherited.
func (l socketListener) prepare(conn net.Conn) error {
	if l.sendBuffer == 0 {
		return nil
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn.(*net.UnixConn).SetWriteBuffer(l.sendBuffer)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = setOptions(fd, l.sendBuffer, l.writeTimeout) })
	return cmp.Or(err, failed, tcp.SetKeepAlive(false)) // see Listen
}

// A socket is a *net.TCPConn or a *net.UnixConn.
type socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// findSocket returns the socket of a connection, without wrappers.
func findSocket(conn net.Conn) (socket, bool) {
	if tcp, ok := findConn[*net.TCPConn](conn); ok {
		return tcp, true
	}
	if unix, ok := findConn[*net.UnixConn](conn); ok {
		return unix, true
	}
	return nil, false
}

// A socketConn records whether its peer was unresponsive when a read or write timed
// out. A stream that owns its connection can ask the kernel itself. A stream of a shared HTTP/2
// connection is only informed that the connection is closed.
type socketConn struct {
	socket
	writeTimeout time.Duration
	unresponsive atomic.Bool
	received     []byte // read from the connection before it became a socketConn
}

func (c *socketConn) Read(b []byte) (int, error) {
	if len(c.received) > 0 {
		n := copy(b, c.received)
		if c.received = c.received[n:]; len(c.received) == 0 {
			c.received = nil
		}
		return n, nil
	}
	n, err := c.socket.Read(b)
	c.note(err)
	return n, err
}

func (c *socketConn) Write(b []byte) (int, error) {
	n, err := c.socket.Write(b)
	c.note(err)
	return n, err
}

// note checks why a read or write has failed.
func (c *socketConn) note(err error) {
	if err != nil && (isTimeout(err) || errors.Is(err, os.ErrDeadlineExceeded)) && c.isUnresponsive() {
		c.unresponsive.Store(true)
	}
}

// isUnresponsive reports whether an acknowledgement of the peer is overdue: see reasonOf. It returns
// false if the peer has only stalled one of several streams.
func (c *socketConn) isUnresponsive() bool {
	return !acknowledges(c.socket, ackAge(c.writeTimeout))
}

func (c *socketConn) inner() net.Conn { return c.socket }

// RemoteAddr replaces the address of a peer that is connected to a Unix socket: see unixsocket.Peer.
func (c *socketConn) RemoteAddr() net.Addr {
	if _, ok := c.socket.(*net.UnixConn); ok {
		return unixsocket.PeerAddr()
	}
	return c.socket.RemoteAddr()
}

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
