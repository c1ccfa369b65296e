package sse

import (
	"net"
	"os"
	"time"

	"usercast/hub"
	"usercast/internal/netpoll"
)

// A poller watches the connections of all pollConns.
type poller = netpoll.Poller

func newPoller() *poller { return netpoll.NewPoller() }

// A pollConn is a socket in the poller. An idle connection costs the socket and 64 bytes.
type pollConn struct {
	netpoll.Conn
	patience // immutable once it is the handler of Conn
}

// adopt takes over the socket of conn, which the caller must not use afterwards. If adopt fails,
// conn is unchanged.
func (p patience) adopt(poller *poller, conn socket) (transport, error) {
	c := &pollConn{patience: p}
	if err := poller.Adopt(&c.Conn, conn, c); err != nil {
		return nil, err
	}
	return c, nil
}

// Received implements netpoll.Handler.
func (c *pollConn) Received([]byte, bool) {
	if c.client != nil && c.BytesReceived() > maxPeerBytes {
		c.client.End(hub.ReasonFailed)
	}
}

// Closed implements netpoll.Handler.
func (c *pollConn) Closed(err error) {
	if c.client != nil { // otherwise the response is short, and the connection closes soon anyway
		c.client.End(c.reason(err))
	}
}

func (c *pollConn) tryWrite(bufs *net.Buffers) (int64, error) { return c.TryWrite(bufs) }

// write waits in steps, because the kernel reports a socket as writable only if a large part of the
// buffer is free.
func (c *pollConn) write(bufs *net.Buffers) (int64, error) {
	return c.writeInSteps(func(deadline time.Time) (int64, error) {
		n, writable, err := c.WriteOrWait(bufs)
		if err != netpoll.ErrWouldBlock {
			return n, err
		}
		timer := time.NewTimer(time.Until(deadline))
		defer timer.Stop()
		select {
		case <-writable:
		case <-timer.C:
		}
		return n, os.ErrDeadlineExceeded
	})
}

func (c *pollConn) interrupt() { c.CancelWrites() }

// reason uses the first error of the kernel, because later ones are its consequences. A write that
// was canceled or came after the end does not need a reason: the client already has one.
func (c *pollConn) reason(err error) hub.Reason {
	if first := c.Err(); first != nil {
		err = first
	}
	return reasonOf(err, func() bool {
		info, err := c.TCPInfo()
		return err != nil || hasAcknowledged(info, ackAge(c.writeTimeout))
	})
}

func (c *pollConn) close() {
	if c.Close() {
		c.limiter.release()
	}
}
