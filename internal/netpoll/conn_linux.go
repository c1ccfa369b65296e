package netpoll

import (
	"cmp"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Handler receives what happens on a Conn. Its methods are called by the Poller's
// goroutine and must not block. They may call the methods of the Conn.
type Handler interface {
	// Received passes bytes from the peer. They are valid until it returns. If last is set, the
	// peer has closed its side of the connection, and Closed follows.
	Received(data []byte, last bool)

	// Closed reports once that the peer has closed the connection (io.EOF) or that the connection has
	// failed (an Errno), unless a write has already returned that error. The handler must still
	// close the Conn.
	Closed(err error)
}

// A Conn is a connected socket without a goroutine, a net.Conn or a buffer. Its owner embeds it,
// which saves an allocation. Methods are safe for concurrent use, except that only one goroutine
// may write at a time.
type Conn struct {
	poller  *Poller // immutable
	handler Handler // guarded by mu

	// The kernel reports the error of a socket only once, to the first read or write. Later calls
	// return "end of file" or "broken pipe". So each call and the recording of its error
	// must be one step under mu.
	mu       sync.Mutex
	fd       int32  // -1 once closed
	failure  errno  // the first error; 0: none
	canceled bool   // writes fail
	waiting  bool   // a writer waits in the Poller
	received uint32 // bytes

	gen uint32 // guarded by poller.mu: distinguishes it from other Conns with the same file descriptor
}

// An errno is a syscall.Errno, or endOfFile, in two bytes.
type errno uint16

const endOfFile errno = 1<<16 - 1

func (e errno) err() error {
	switch e {
	case 0:
		return nil
	case endOfFile:
		return io.EOF
	}
	return syscall.Errno(e)
}

// Add makes c, which must be zero, the Conn of a non-blocking file descriptor, which it then
// owns. If Add fails, the caller still owns the file descriptor.
func (p *Poller) Add(c *Conn, fd int, h Handler) error {
	c.poller, c.handler, c.fd = p, h, int32(fd)
	return p.add(c)
}

// A Socket is a *net.TCPConn or a *net.UnixConn.
type Socket interface {
	syscall.Conn
	io.Closer
}

// Adopt takes over the socket of conn and closes conn. The peer does not notice this. If Adopt
// fails, conn is unchanged.
func (p *Poller) Adopt(c *Conn, conn Socket, h Handler) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	fd, err := duplicate(raw)
	if err != nil {
		return err
	}
	if err := p.Add(c, fd, h); err != nil {
		unix.Close(fd)
		return err
	}
	conn.Close()
	return nil
}

func duplicate(raw syscall.RawConn) (fd int, err error) {
	e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, cmp.Or(e, err)
}

// SetHandler replaces the handler. If the connection has already failed, it returns that error and
// keeps the handler, which was or will be informed.
func (c *Conn) SetHandler(h Handler) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failure == 0 {
		c.handler = h
	}
	return c.failure.err()
}

// Err returns the first error that the kernel has reported: io.EOF, an Errno, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failure.err()
}

// BytesReceived returns how many bytes the peer has sent.
func (c *Conn) BytesReceived() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.received)
}

// TCPInfo returns what the kernel knows about the connection. It fails after Close.
func (c *Conn) TCPInfo() (*unix.TCPInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil, net.ErrClosed
	}
	return unix.GetsockoptTCPInfo(int(c.fd), unix.IPPROTO_TCP, unix.TCP_INFO)
}

// ready handles an event.
func (c *Conn) ready(events uint32, buf []byte) {
	c.wakeWriter()
	if events&^unix.EPOLLOUT == 0 {
		return
	}
	const ended = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	for {
		n, h, err := c.read(buf)
		switch {
		case err == ErrWouldBlock:
			return
		case err != nil:
			h.Closed(err)
			return
		}
		h.Received(buf[:n], events&unix.EPOLLRDHUP != 0)
		if n < len(buf) && events&ended == 0 {
			return // nothing is left: later bytes cause another event
		}
	}
}

// read reads once, and returns the handler to inform. The error is also ErrWouldBlock after Close
// and after an error that was reported.
func (c *Conn) read(buf []byte) (int, Handler, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 || c.failure != 0 {
		return 0, nil, ErrWouldBlock
	}
	n, err := read(int(c.fd), buf)
	switch {
	case err == unix.EAGAIN:
		return 0, nil, ErrWouldBlock
	case err != nil:
		c.fail(err)
	case n == 0:
		c.failure = endOfFile
	default:
		c.received += min(uint32(n), 1<<32-1-c.received)
	}
	return n, c.handler, c.failure.err()
}

// fail records an error. c.mu is held.
func (c *Conn) fail(err error) {
	if code, ok := err.(syscall.Errno); ok && c.failure == 0 {
		c.failure = errno(code)
	}
}

// TryWrite writes as much as the socket accepts immediately, in as few calls as possible, and
// removes that from bufs. The error is ErrWouldBlock if bytes are left, and net.ErrClosed after
// Close or CancelWrites.
func (c *Conn) TryWrite(bufs *net.Buffers) (n int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(bufs)
}

// WriteOrWait is TryWrite, but with ErrWouldBlock it also returns a channel. The channel receives an item when
// the socket may accept more or when the write will fail. The caller must call it again until the
// result is not ErrWouldBlock.
func (c *Conn) WriteOrWait(bufs *net.Buffers) (n int64, writable <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err = c.write(bufs)
	switch {
	case err == ErrWouldBlock:
		writable = c.poller.waitWritable(c)
		c.waiting = true
	case c.waiting && c.fd >= 0:
		c.poller.stopWaiting(c)
		c.waiting = false
	}
	return n, writable, err
}

// write is TryWrite. c.mu is held.
func (c *Conn) write(bufs *net.Buffers) (n int64, err error) {
	for len(*bufs) > 0 {
		if c.fd < 0 || c.canceled {
			return n, net.ErrClosed
		}
		var k int
		if list := *bufs; len(list) == 1 {
			k, err = write(int(c.fd), list[0])
		} else {
			k, err = unix.Writev(int(c.fd), list[:min(len(list), maxVector)])
		}
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return n, ErrWouldBlock
		case err != nil:
			c.fail(err)
			return n, err
		default:
			n += int64(k)
			Consume(bufs, k)
		}
	}
	return n, nil
}

// maxVector is how many buffers the kernel accepts in one call (IOV_MAX).
const maxVector = 1024

// CancelWrites makes the write in progress and every later one fail.
func (c *Conn) CancelWrites() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.canceled = true
	if c.waiting {
		c.poller.wake(c)
	}
}

func (c *Conn) wakeWriter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting {
		c.poller.wake(c)
	}
}

// Detach removes the connection from the Poller, closes the Conn, and returns its file descriptor,
// which the caller then owns. It returns -1 if the Conn was already closed.
func (c *Conn) Detach() (fd int) { return c.release(true) }

// Close closes the connection, and reports whether it was open. It can be called more than once.
func (c *Conn) Close() bool {
	fd := c.release(false)
	if fd >= 0 {
		unix.Close(fd)
	}
	return fd >= 0
}

func (c *Conn) release(keep bool) (fd int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd = int(c.fd)
	if fd < 0 {
		return -1
	}
	if c.waiting {
		c.poller.wake(c)
	}
	c.poller.remove(c, keep)
	c.fd = -1
	return fd
}
