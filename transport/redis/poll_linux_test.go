package redis

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// What a polled connection says is what package net's own says.
func TestPolledConn(t *testing.T) {
	for name, test := range map[string]struct {
		far  func(far *net.TCPConn) // while nothing is there to read
		near func(near net.Conn)
		text string
		err  error
	}{
		"bytes":    {far: func(far *net.TCPConn) { io.WriteString(far, "hello") }, text: "hello"},
		"end":      {far: func(far *net.TCPConn) { far.Close() }, err: io.EOF},
		"reset":    {far: func(far *net.TCPConn) { far.SetLinger(0); far.Close() }, err: syscall.ECONNRESET},
		"deadline": {near: func(near net.Conn) { near.SetReadDeadline(time.Now().Add(time.Millisecond)) }, err: os.ErrDeadlineExceeded},
		"closed":   {near: func(near net.Conn) { near.Close() }, err: net.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			plain, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer plain.Close()
			far, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer far.Close()
			near := polled(plain)
			if _, ok := near.(*polledConn); !ok {
				t.Fatalf("a TCP connection is a %T", near)
			}
			if n, err := near.Read(nil); n != 0 || err != nil {
				t.Errorf("reading nothing: %d, %v", n, err)
			}
			go func() {
				time.Sleep(5 * time.Millisecond) // the read has begun, or has yet to
				if test.far != nil {
					test.far(far.(*net.TCPConn))
				}
				if test.near != nil {
					test.near(near)
				}
			}()
			b := make([]byte, 100)
			n, err := near.Read(b)
			if text := string(b[:n]); text != test.text || !errors.Is(err, test.err) {
				t.Errorf("got %q, %v; want %q, %v", text, err, test.text, test.err)
			}
			var op *net.OpError
			if err != nil && err != io.EOF && !errors.As(err, &op) {
				t.Errorf("the error is a %T: %v", err, err)
			}
		})
	}
}
