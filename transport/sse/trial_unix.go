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
}

func (t *trial) init(conn net.Conn) {
	if sc, ok := conn.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			t.raw = raw
		}
	}
	t.call = func(fd uintptr) bool {
		n, err := syscall.Write(int(fd), t.data)
		if err == nil {
			t.n = n
		}
		return true // never wait
	}
}

// write returns how many bytes were taken. A full buffer and an error both look
// like 0: the write that follows finds out which it is.
func (t *trial) write(data []byte) int {
	if t.raw == nil {
		return 0
	}
	t.data, t.n = data, 0
	err := t.raw.Write(t.call)
	t.data = nil
	if err != nil {
		return 0
	}
	return t.n
}
