//go:build unix

package netpoll

import (
	"net"
	"syscall"
)

// A TryWriter writes to a connection as much as it accepts immediately. The zero value writes
// nothing. Only one goroutine may use it at a time.
type TryWriter struct {
	socket syscall.RawConn // nil if the connection is neither a *net.TCPConn nor a *net.UnixConn
	try    func(fd uintptr) bool

	// Argument and results of try, which is created only once, so that a write does not
	// allocate.
	data []byte
	n    int
	err  error
}

// NewTryWriter returns a TryWriter for conn. If conn is neither a *net.TCPConn nor a
// *net.UnixConn, it writes nothing: the Write method of another type may do more than write.
func NewTryWriter(conn net.Conn) *TryWriter {
	w := &TryWriter{}
	switch conn := conn.(type) {
	case *net.TCPConn:
		w.socket, _ = conn.SyscallConn() // nil after an error
	case *net.UnixConn:
		w.socket, _ = conn.SyscallConn()
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

// Write returns the number of bytes that were accepted, which may be 0 if the buffer is full. It
// returns errors of the socket, because the kernel reports them only once.
func (w *TryWriter) Write(data []byte) (int, error) {
	if w.socket == nil {
		return 0, nil
	}
	w.data, w.n, w.err = data, 0, nil
	err := w.socket.Write(w.try)
	w.data = nil
	if err != nil { // the connection is closed, or its deadline has passed
		return 0, nil
	}
	return w.n, w.err
}
