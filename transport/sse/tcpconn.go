package sse

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A listener makes each connection a socket.
type listener struct {
	net.Listener
	writeTimeout time.Duration
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &socket{TCPConn: conn.(*net.TCPConn), timeout: l.writeTimeout}, nil
}

// A socket is a connection that remembers whether its peer had vanished when the
// kernel gave it up. A stream that is detached can ask the kernel itself; one that
// shares the connection over HTTP/2 hears only that it is gone, when it is closed.
type socket struct {
	*net.TCPConn
	timeout  time.Duration
	vanished atomic.Bool
	read     []byte // by a front, which has nothing to do with it
	placed   bool   // by a front, in the crowd
}

func (s *socket) Read(b []byte) (int, error) {
	if len(s.read) > 0 {
		n := copy(b, s.read)
		if s.read = s.read[n:]; len(s.read) == 0 {
			s.read = nil
		}
		return n, nil
	}
	n, err := s.TCPConn.Read(b)
	s.look(err)
	return n, err
}

func (s *socket) Write(b []byte) (int, error) {
	n, err := s.TCPConn.Write(b)
	s.look(err)
	return n, err
}

// look looks at an error of the connection.
func (s *socket) look(err error) {
	if err != nil && (gaveUp(err) || errors.Is(err, os.ErrDeadlineExceeded)) && s.isSilent() {
		s.vanished.Store(true)
	}
}

// isSilent reports whether the peer owes an acknowledgement for too long, which
// connWire.cause explains. It owes none when only one of its streams has stalled.
func (s *socket) isSilent() bool {
	return isOwed(s.TCPConn) && !acknowledges(s.TCPConn, s.timeout*3/4)
}

type socketKey struct{}

// ConnContext is for http.Server.ConnContext: with it, and Listen, streams over HTTP/2
// tell a peer that has vanished from one that has left.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if s, ok := accepted(conn).(*socket); ok {
		return context.WithValue(ctx, socketKey{}, s)
	}
	return ctx
}

// accepted is the connection that a listener of ours accepted, over which a server may
// speak TLS.
func accepted(conn net.Conn) net.Conn {
	if t, ok := conn.(*tls.Conn); ok {
		return t.NetConn()
	}
	return conn
}
