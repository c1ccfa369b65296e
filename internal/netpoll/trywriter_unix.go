//go:build unix

package netpoll

import (
	"net"
	"syscall"
)

// A TryWriter writes to a connection what it accepts immediately. The zero value accepts
// nothing. Only one goroutine may use it at a time.
type TryWriter struct {
	socket syscall.RawConn // nil: not a socket of the kernel
	try    func(fd uintptr) bool

	// Arguments and result of try, which is created once so that a write allocates
	// nothing.
	data []byte
	n    int
	err  error
}

// NewTryWriter returns a TryWriter for conn. It accepts nothing if conn is not a
// *net.TCPConn: the Write of another type may do more than write.
func NewTryWriter(conn net.Conn) *TryWriter {
	w := &TryWriter{}
	if tcp, ok := conn.(*net.TCPConn); ok {
		if socket, err := tcp.SyscallConn(); err == nil {
			w.socket = socket
		}
	}
	w.try = func(fd uintptr) bool {
		n, err := syscall.Write(int(fd), w.data)
		switch err {
		case nil:
			w.n = n
		case syscall.EAGAIN, syscall.EINTR:
		default:
			w.err = err
		}
		return true // do not wait
	}
	return w
}

// Write returns how many bytes were accepted. That the buffer is full is not an error. An
// error of the socket is returned, because the kernel reports it only once.
func (w *TryWriter) Write(data []byte) (int, error) {
	if w.socket == nil {
		return 0, nil
	}
	w.data, w.n, w.err = data, 0, nil
	err := w.socket.Write(w.try)
	w.data = nil
	if err != nil { // the connection is closed, or a deadline is set
		return 0, nil
	}
	return w.n, w.err
}
