package hubtest

import (
	"net"
	"testing"
	"time"
)

// Dial connects to host:port for a test that writes and reads bytes of its own.
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
