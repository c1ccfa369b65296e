package netpoll

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// Read returns the same results as that of package net's connection.
func TestReadConnReadsLikePackageNet(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		far  func(far *net.TCPConn) // called while there is nothing to read
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
			t.Parallel()
			far, tcp := connPair(t)
			near := ReadConn(tcp)
			if _, ok := near.(*readConn); !ok {
				t.Fatalf("a TCP connection is a %T", near)
			}
			if n, err := near.Read(nil); n != 0 || err != nil {
				t.Errorf("a read of nothing: %d, %v", n, err)
			}
			go func() {
				time.Sleep(5 * time.Millisecond) // the read usually begins first; both orders are correct
				if test.far != nil {
					test.far(far)
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

// ReadConn returns connections that are not sockets unchanged.
func TestReadConnOfAPipe(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if got := ReadConn(a); got != a {
		t.Errorf("a pipe becomes a %T", got)
	}
}

// A TryWriter writes without waiting, without a deadline and without an allocation.
func TestTryWriter(t *testing.T) {
	far, near := connPair(t)
	w := NewTryWriter(near)
	if n, err := w.Write([]byte("hello")); n != 5 || err != nil {
		t.Errorf("wrote %d, %v", n, err)
	}
	b := make([]byte, 10)
	if n, err := far.Read(b); string(b[:n]) != "hello" {
		t.Errorf("received %q, %v", b[:n], err)
	}
	one := []byte("x")
	if n := testing.AllocsPerRun(100, func() { w.Write(one) }); n != 0 {
		t.Errorf("%v allocations per write", n)
	}
	large := make([]byte, 1<<20)
	for n := 1; n > 0; {
		var err error
		if n, err = w.Write(large); err != nil {
			t.Fatal(err)
		}
	}
	far.SetLinger(0)
	far.Close()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if _, err := w.Write(one); errors.Is(err, syscall.ECONNRESET) {
			break
		} else if time.Since(start) > 10*time.Second {
			t.Fatalf("after a reset: %v", err)
		}
	}
	near.Close()
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	for name, w := range map[string]*TryWriter{"closed": w, "pipe": NewTryWriter(pipe)} {
		if n, err := w.Write(one); n != 0 || err != nil {
			t.Errorf("%s: wrote %d, %v", name, n, err)
		}
	}
}

// connPair returns both ends of a connection over loopback.
func connPair(t *testing.T) (far, near *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialed.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return dialed.(*net.TCPConn), accepted.(*net.TCPConn)
}
