package redis

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"
)

// A polledConn is a connection whose socket is read past the scheduler, which need not
// know of a call that never waits. Else each message that comes in while the process is
// idle would wake the runtime's monitor, and that looks every 20 µs for a while whether
// the call has come to wait: a fifth of what an unhurried hub did.
//
// One goroutine reads at a time.
type polledConn struct {
	net.Conn
	socket syscall.RawConn
	try    func(fd uintptr) bool // tryRead: a method value made for each read would be garbage

	// Of the read under way.
	buf   []byte
	n     int
	errno syscall.Errno
}

// polled is conn itself if it is no socket of the kernel's.
func polled(conn net.Conn) net.Conn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return conn // TLS
	}
	socket, err := sc.SyscallConn()
	if err != nil {
		return conn
	}
	c := &polledConn{Conn: conn, socket: socket}
	c.try = c.tryRead
	return c
}

func (c *polledConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.buf = b
	err := c.socket.Read(c.try)
	c.buf = nil
	switch {
	case err != nil: // closed, or past its deadline
		return 0, err
	case c.errno != 0:
		return 0, &net.OpError{
			Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
			Err: os.NewSyscallError("read", c.errno),
		}
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

// tryRead is false if there is nothing to read yet.
func (c *polledConn) tryRead(fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&c.buf[0])), uintptr(len(c.buf)))
		if errno == syscall.EINTR {
			continue
		}
		c.n, c.errno = int(n), errno
		return errno != syscall.EAGAIN
	}
}
