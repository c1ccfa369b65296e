package hubtest

import (
	"net"
	"syscall"
	"testing"
	"time"
)

// Dial connects to host:port for a test that reads and writes bytes directly.
func Dial(tb testing.TB, addr string) net.Conn {
	tb.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(Patience))
	return conn
}

// DialSmall connects with a receive buffer of the given size; 0 means the default of the kernel. It sets the buffer
// before the handshake, which announces the window.
func DialSmall(addr string, receiveBuffer int) (net.Conn, error) {
	d := net.Dialer{Timeout: Patience, Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if receiveBuffer > 0 {
			if e := raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
			}); e != nil {
				return e
			}
		}
		return err
	}}
	return d.Dial("tcp", addr)
}
