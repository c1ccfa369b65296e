//go:build unix

package sse

import (
	"net"
	"syscall"
)

// A trial writes to a socket as much as it takes at once.
type trial struct {
	raw  syscall.RawConn // nil: not a socket of the kernel's
	call func(fd uintptr) bool

	// Arguments and result of call, which is made once so that a write
	// allocates nothing.
	data []byte
	n    int
	err  error
}

func (t *trial) init(conn net.Conn) {
	// Not any connection that lets one at its socket: another's Write may do more
	// than write.
	if tcp, ok := conn.(*net.TCPConn); ok {
		if raw, err := tcp.SyscallConn(); err == nil {
			t.raw = raw
		}
	}
	t.call = func(fd uintptr) bool {
		n, err := syscall.Write(int(fd), t.data)
		switch err {
		case nil:
			t.n = n
		case syscall.EAGAIN, syscall.EINTR:
		default:
			t.err = err
		}
		return true // never wait
	}
}

// write returns how many bytes were taken. A full buffer is no error; one of the
// socket is returned, for the kernel tells it once.
func (t *trial) write(data []byte) (int, error) {
	if t.raw == nil {
		return 0, nil
	}
	t.data, t.n, t.err = data, 0, nil
	err := t.raw.Write(t.call)
	t.data = nil
	if err != nil { // the connection is closed, or a deadline is armed
		return 0, nil
	}
	return t.n, t.err
}
