package sse

import (
	"cmp"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"usercast/hub"
	"usercast/internal/netpoll"
)

// A hijackedConn is a connection that was hijacked from net/http. The body ends with the
// connection, so it is not chunked, and all streams share the bytes of a frame.
type hijackedConn struct {
	patience
	conn        net.Conn  // without wrappers: writev and TCP_INFO need the socket
	closer      io.Closer // with all wrappers
	direct      *netpoll.TryWriter
	interrupted atomic.Bool
	scratch     [64]byte // bytes from the peer, which are discarded

	// The kernel reports the error of a socket only once, to the first call: the pending read or a
	// write. The other call fails with "end of file" or "broken pipe", and finds the
	// reason in these fields.
	reading     sync.WaitGroup // until wait returns
	readReason  hub.Reason     // the result of wait
	writing     sync.Mutex     // held during a write
	writeReason hub.Reason     // guarded by writing: the reason for a timeout during a write
}

func newHijackedConn(conn net.Conn, p patience) *hijackedConn {
	c := &hijackedConn{patience: p, conn: conn, closer: conn}
	if s, ok := findSocket(conn); ok {
		c.conn = s
	}
	c.direct = netpoll.NewTryWriter(c.conn)
	return c
}

// tryWrite writes a single buffer without a deadline. It usually fits into the socket's buffer, and a
// deadline would need a timer, which costs a quarter of the user CPU time of a delivery.
func (c *hijackedConn) tryWrite(bufs *net.Buffers) (int64, error) {
	if len(*bufs) != 1 {
		return 0, netpoll.ErrWouldBlock
	}
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.interrupted.Load() {
		return 0, net.ErrClosed
	}
	n, err := c.direct.Write((*bufs)[0])
	if err != nil {
		c.noteTimeout(err)
		return 0, err
	}
	netpoll.Consume(bufs, n)
	if len(*bufs) > 0 {
		err = netpoll.ErrWouldBlock
	}
	return int64(n), err
}

func (c *hijackedConn) write(bufs *net.Buffers) (int64, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.writeInSteps(func(deadline time.Time) (int64, error) {
		if err := c.conn.SetWriteDeadline(deadline); err != nil {
			return 0, err
		}
		if c.interrupted.Load() { // our deadline may have replaced that of interrupt
			return 0, net.ErrClosed
		}
		return c.writeOnce(bufs)
	})
	if err == nil { // otherwise the deadline would make the next tryWrite fail
		err = c.conn.SetWriteDeadline(time.Time{})
	}
	c.noteTimeout(err)
	return n, err
}

// writeOnce writes all buffers with one call. It joins them first if the connection does not support
// writev.
func (c *hijackedConn) writeOnce(bufs *net.Buffers) (int64, error) {
	if len(*bufs) > 1 {
		switch c.conn.(type) {
		case *net.TCPConn, *net.UnixConn:
			return bufs.WriteTo(c.conn)
		}
		*bufs = net.Buffers{slices.Concat(*bufs...)}
	}
	n, err := c.conn.Write((*bufs)[0])
	(*bufs)[0] = (*bufs)[0][n:]
	return int64(n), err
}

// noteTimeout records the reason if a write ended with a timeout of the kernel. c.writing is held.
func (c *hijackedConn) noteTimeout(err error) {
	if isTimeout(err) {
		c.writeReason = c.reason(err)
	}
}

func (c *hijackedConn) interrupt() {
	c.interrupted.Store(true)
	c.conn.SetWriteDeadline(time.Unix(1, 0))
}

func (c *hijackedConn) wait() hub.Reason {
	c.readReason = c.read()
	c.reading.Done()
	return c.readReason
}

// read reads until the peer disconnects.
func (c *hijackedConn) read() hub.Reason {
	for n := 0; n < maxPeerBytes; {
		k, err := c.conn.Read(c.scratch[:])
		if err != nil {
			return c.reason(err)
		}
		n += k
	}
	return hub.ReasonFailed
}

func (c *hijackedConn) reason(err error) hub.Reason {
	switch {
	case errors.Is(err, io.EOF) && hasFailed(c.conn): // not after a FIN, when a write may hold the lock for long
		c.writing.Lock()
		defer c.writing.Unlock()
		return cmp.Or(c.writeReason, hub.ReasonClosed)
	case errors.Is(err, syscall.EPIPE):
		c.reading.Wait()
		return cmp.Or(c.readReason, hub.ReasonClosed)
	}
	return reasonOf(err, func() bool { return acknowledges(c.conn, ackAge(c.writeTimeout)) })
}

func (c *hijackedConn) close() { c.closer.Close() }
