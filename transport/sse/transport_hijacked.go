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

// A hijackedConn is a connection taken over from net/http. The body ends with the
// connection, so the bytes of a frame are the same for every stream.
type hijackedConn struct {
	patience
	conn        net.Conn  // the innermost one: writev and TCP_INFO need the kernel's own type
	closer      io.Closer // the outermost one
	direct      *netpoll.TryWriter
	interrupted atomic.Bool
	scratch     [64]byte // what the peer sends is read into it and forgotten

	// The kernel reports once why a socket has failed, to the call that comes first: the
	// read that waits all the time or a write. The other one gets no more than
	// "end of file" or "broken pipe", and looks here.
	reading     sync.WaitGroup // wait has yet to return
	readReason  hub.Reason     // what it returned
	writing     sync.Mutex     // held during a write
	writeReason hub.Reason     // guarded by writing: why the kernel gave up during a write
}

func newHijackedConn(conn net.Conn, p patience) *hijackedConn {
	c := &hijackedConn{patience: p, conn: conn, closer: conn}
	if tcp, ok := findConn[*net.TCPConn](conn); ok {
		c.conn = tcp
	}
	c.direct = netpoll.NewTryWriter(c.conn)
	return c
}

// tryWrite writes one message, which mostly fits into the socket's buffer, without a
// deadline: setting one costs a timer, a quarter of the user time of a delivery.
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
		if c.interrupted.Load() { // it may have set its deadline before we set ours
			return 0, net.ErrClosed
		}
		return c.writeOnce(bufs)
	})
	if err == nil { // a deadline that stays set would fail the next tryWrite
		err = c.conn.SetWriteDeadline(time.Time{})
	}
	c.noteTimeout(err)
	return n, err
}

// writeOnce writes all buffers in one system call. Connections other than the
// kernel's own would need one for each buffer.
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

// noteTimeout notes why the kernel gave up during a write. c.writing is held.
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
	case errors.Is(err, io.EOF) && hasFailed(c.conn): // not a FIN, after which a write may wait for long
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
