package netpoll

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A readConn is what ReadConn returns.
type readConn struct {
	net.Conn
	socket syscall.RawConn
	try    func(fd uintptr) bool // tryRead, stored because a method value per read would need an allocation

	// Argument and result of the read in progress.
	buf []byte
	n   int
	err error
}

// ReadConn returns a connection whose Read uses a raw system call and does not allocate. Only one
// goroutine may read at a time. It returns conn itself if that is not a plain socket, for example
// with TLS.
func ReadConn(conn net.Conn) net.Conn {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	socket, err := sc.SyscallConn()
	if err != nil {
		return conn
	}
	c := &readConn{Conn: conn, socket: socket}
	c.try = c.tryRead
	return c
}

func (c *readConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.buf = b
	err := c.socket.Read(c.try)
	c.buf = nil
	switch {
	case err != nil: // the connection is closed, or the deadline has passed
		return 0, err
	case c.err != nil:
		return 0, &net.OpError{
			Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(),
			Err: os.NewSyscallError("read", c.err),
		}
	case c.n == 0:
		return 0, io.EOF
	}
	return c.n, nil
}

// tryRead returns false if no bytes are available yet.
func (c *readConn) tryRead(fd uintptr) bool {
	c.n, c.err = read(int(fd), c.buf)
	return c.err != unix.EAGAIN
}
