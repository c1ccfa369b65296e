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

// A pollConn is a socket in the poller: while nothing happens, that and 64 bytes are all
// that a connection costs.
type pollConn struct {
	netpoll.Conn
	patience // immutable once it is the handler of Conn
}

// adopt takes over the socket of conn, which the caller must not use any more. After an
// error it is as before.
func (p patience) adopt(poller *poller, conn *net.TCPConn) (transport, error) {
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
	if c.client != nil { // otherwise it is closed soon anyway
		c.client.End(c.reason(err))
	}
}

func (c *pollConn) tryWrite(bufs *net.Buffers) (int64, error) { return c.TryWrite(bufs) }

// write waits in steps because the kernel reports that there is room only when there is
// a lot.
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

// reason prefers what the kernel reported first: later errors are its consequences. A write
// that was canceled, or came after the end, has none: the client's reason is known already.
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
