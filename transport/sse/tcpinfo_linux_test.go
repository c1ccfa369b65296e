package sse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"usercast/hub"
)

// accept returns both ends of a connection to a listener of this package.
func accept(t *testing.T, sendBuffer int, writeTimeout time.Duration) (server, client *net.TCPConn) {
	t.Helper()
	l, err := Listen(context.Background(), "127.0.0.1:0", sendBuffer, writeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialled, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dialled.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return accepted.(*socketConn).socket.(*net.TCPConn), dialled.(*net.TCPConn)
}

// control calls look with the file descriptor of a socket.
func control(t *testing.T, conn *net.TCPConn, look func(fd int) error) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var looked error
	if err := raw.Control(func(fd uintptr) { looked = look(int(fd)) }); err != nil || looked != nil {
		t.Fatal(err, looked)
	}
}

// Sockets inherit the options that are set on the listener. MPTCP does not support
// TCP_USER_TIMEOUT.
func TestAcceptedSocketsInheritTheOptions(t *testing.T) {
	server, _ := accept(t, 20<<10, 7*time.Second)
	control(t, server, func(fd int) error {
		buffer, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
		if err != nil || buffer != 2*20<<10 {
			return fmt.Errorf("SO_SNDBUF %d, %w", buffer, err)
		}
		timeout, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil || timeout != 7000 {
			return fmt.Errorf("TCP_USER_TIMEOUT %d, %w", timeout, err)
		}
		return nil
	})
}

func TestListenErrors(t *testing.T) {
	l, err := Listen(context.Background(), "127.0.0.1:0", 4096, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Listen(context.Background(), l.Addr().String(), 4096, time.Second); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port in use: %v", err)
	}
	if _, err := Listen(context.Background(), "127.0.0.1:0", 4096, -time.Second); err == nil || !strings.Contains(err.Error(), "TCP_USER_TIMEOUT") {
		t.Errorf("an invalid option: %v", err)
	}
}

// hijacked returns the transport of a stream whose client stays open.
func hijacked(t *testing.T, conn net.Conn, writeTimeout time.Duration) *hijackedConn {
	return newHijackedConn(conn, patience{&connSettings{writeTimeout: writeTimeout}, openClient(t)})
}

// An idle stream on Linux consists of a pollConn, a stream and a hub.Client.
func TestPollConnIsSmall(t *testing.T) {
	if size := reflect.TypeFor[pollConn]().Size(); size > 64 {
		t.Errorf("a pollConn takes %d bytes", size)
	}
	if size := reflect.TypeFor[stream]().Size(); size > 128 {
		t.Errorf("a stream takes %d bytes", size)
	}
}

// openClient returns a client that stays open while the test runs.
func openClient(t *testing.T) *hub.Client {
	t.Helper()
	c, err := hub.NewPubSub(hub.Config{Encode: EncodeEntry}).Register(hub.Options{User: "42", Consumer: silent{}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

type silent struct{}

func (silent) Wake()      {}
func (silent) Interrupt() {}

// A hundred frames need only one system call: the kernel sends the bytes of one call in one
// segment.
func TestBurstIsOneSegment(t *testing.T) {
	server, client := accept(t, 128<<10, 10*time.Second)
	w := hijacked(t, server, 10*time.Second)
	var bufs net.Buffers
	for range 100 {
		bufs = append(bufs, []byte("data: one of a hundred\n\n"))
	}
	size := len(bufs[0]) * len(bufs)
	before := segments(t, server)
	if n, err := w.write(&bufs); n != int64(size) || err != nil {
		t.Fatal(n, err)
	}
	if got := segments(t, server) - before; got != 1 {
		t.Errorf("%d segments", got)
	}
	if _, err := io.ReadFull(client, make([]byte, size)); err != nil {
		t.Error(err)
	}
}

// A write to a socket whose buffer is full waits, for one frame and for many.
func TestWriteIntoAFullBuffer(t *testing.T) {
	for _, frames := range []int{1, 2} {
		server, client := accept(t, 64<<10, 10*time.Second)
		w := hijacked(t, server, 10*time.Second)
		sent := fill(t, w)
		large := strings.Repeat("0123456789", 1<<18) // far more than any buffer holds
		var bufs net.Buffers
		for range frames {
			bufs = append(bufs, []byte(large))
			sent += large
		}
		got := make(chan string)
		go func() {
			all, err := io.ReadAll(client)
			if err != nil {
				t.Error(err)
			}
			got <- string(all)
		}()
		if n, err := w.write(&bufs); n != int64(frames*len(large)) || err != nil {
			t.Errorf("%d frames: %d bytes, %v", frames, n, err)
		}
		w.close()
		if all := <-got; all != sent {
			t.Errorf("%d frames: %d bytes arrived, %d were sent, or they differ", frames, len(all), len(sent))
		}
	}
}

// fill writes until the socket's buffer is full, which is not an error.
func fill(t *testing.T, w *hijackedConn) (sent string) {
	t.Helper()
	some := strings.Repeat("filled!", 1000)
	for {
		n, err := w.direct.Write([]byte(some))
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return sent
		}
		sent += some[:n]
	}
}

func segments(t *testing.T, conn *net.TCPConn) (n uint32) {
	control(t, conn, func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			n = info.Data_segs_out
		}
		return err
	})
	return n
}

// A peer whose reader has stopped acknowledges probes of its closed window. It counts as slow, not
// as dead, with either of the two timeouts.
func TestStalledReaderIsSlowNotDead(t *testing.T) {
	const timeout = 500 * time.Millisecond
	for name, userTimeout := range map[string]time.Duration{
		"write deadline first": 10 * time.Second, "TCP_USER_TIMEOUT first": timeout,
	} {
		t.Run(name, func(t *testing.T) {
			server, client := accept(t, 4096, userTimeout)
			if err := client.SetReadBuffer(4096); err != nil {
				t.Fatal(err)
			}
			wait := timeout
			if userTimeout == timeout {
				wait = 10 * time.Second // for the kernel
			}
			w := hijacked(t, server, wait)
			start := time.Now()
			bufs := net.Buffers{make([]byte, 8<<20)}
			_, err := w.write(&bufs)
			took := time.Since(start)
			w.connSettings = &connSettings{writeTimeout: timeout}
			time.Sleep(2 * timeout) // the process notices the timeout late
			if cause := w.reason(err); cause != hub.ReasonSlow {
				t.Errorf("%v: %v after %v", err, cause, took)
			}
			if took < timeout/2 {
				t.Errorf("ended after %v", took)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
			// The socket has failed, and the kernel has reported the error only to the write.
			w.reading.Add(1)
			if cause := w.wait(); cause != hub.ReasonSlow {
				t.Errorf("the reason of the read is %v", cause)
			}
		})
	}
}

// A peer is dead only if it has not answered to what was sent again. Without that, an old acknowledgement proves nothing: the
// next probe of a closed window may be due later, an answer may be in flight, or this process may have noticed the timeout
// late.
func TestOnlyUnansweredDataMakesAPeerDead(t *testing.T) {
	const d = time.Minute
	for _, test := range []struct {
		info unix.TCPInfo
		want bool
	}{
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED}, true},
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED, Unacked: 1, Last_ack_recv: 60_000}, true},
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED, Unacked: 1, Retransmits: 1, Last_ack_recv: 60_000, Last_data_sent: 20_000}, true},
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED, Unacked: 1, Retransmits: 2, Last_ack_recv: 59_999, Last_data_sent: 20_000}, true},
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED, Unacked: 1, Retransmits: 2, Last_ack_recv: 60_000, Last_data_sent: 20_000}, false},
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED, Unacked: 1, Retransmits: 2, Last_ack_recv: 60_000, Last_data_sent: 60_000}, true},
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED, Notsent_bytes: 1, Probes: 1, Last_ack_recv: 60_000}, true},
		{unix.TCPInfo{State: unix.BPF_TCP_ESTABLISHED, Notsent_bytes: 1, Probes: 2, Last_ack_recv: 60_000}, false},
		{unix.TCPInfo{State: unix.BPF_TCP_CLOSE, Last_ack_recv: 60_000}, true},
		{unix.TCPInfo{State: unix.BPF_TCP_CLOSE, Retransmits: 3, Last_ack_recv: 60_000, Last_data_sent: 20_000}, false},
	} {
		if got := hasAcknowledged(&test.info, d); got != test.want {
			t.Errorf("%+v: %v", test.info, got)
		}
	}
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	if !acknowledges(pipe, 0) {
		t.Error("a connection without TCP_INFO counts as dead")
	}
}

// The kernel reports the error of a socket only once, either to the read or to a write. The other
// must find the reason, too.
func TestReadAndWriteReportTheSameReason(t *testing.T) {
	server, client := accept(t, 4096, 10*time.Second)
	client.SetLinger(0)
	client.Close() // a reset
	if err := untilReadable(server); err != nil {
		t.Fatal(err)
	}
	bufs := net.Buffers{[]byte("x")}
	if _, err := hijacked(t, server, time.Minute).write(&bufs); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write returns %v", err)
	}
}

// untilReadable waits until a read would return, but does not read.
func untilReadable(conn *net.TCPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0
	})
}

// A write to a failed socket always returns "broken pipe". The error was reported to the pending
// read.
func TestBrokenPipeHasTheReasonOfTheRead(t *testing.T) {
	for readErr, want := range map[error]hub.Reason{
		io.EOF: hub.ReasonClosed, syscall.ECONNRESET: hub.ReasonClosed, syscall.ETIMEDOUT: hub.ReasonSlow, syscall.EHOSTUNREACH: hub.ReasonSlow,
		syscall.EIO: hub.ReasonFailed,
	} {
		w := hijacked(t, failingConn{read: readErr}, time.Minute)
		w.reading.Add(1)
		go w.wait()
		if got := w.reason(syscall.EPIPE); got != want {
			t.Errorf("%v: %v, want %v", readErr, got, want)
		}
	}
}

type failingConn struct {
	net.Conn
	read error
}

func (c failingConn) Read([]byte) (int, error) { return 0, c.read }

func TestReasonOfAnError(t *testing.T) {
	server, _ := accept(t, 4096, time.Second)
	w := hijacked(t, server, time.Minute)
	for err, want := range map[error]hub.Reason{
		io.EOF: hub.ReasonClosed, syscall.ECONNRESET: hub.ReasonClosed, syscall.EPIPE: hub.ReasonClosed,
		// A peer that has just acknowledged the handshake.
		syscall.ETIMEDOUT: hub.ReasonSlow, syscall.EHOSTUNREACH: hub.ReasonSlow, syscall.ENETUNREACH: hub.ReasonSlow, syscall.ECONNREFUSED: hub.ReasonSlow,
		net.ErrClosed: hub.ReasonFailed, syscall.ENOBUFS: hub.ReasonFailed,
	} {
		if got := w.reason(&net.OpError{Op: "write", Err: err}); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
