package netpoll

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A recorder is a Handler that passes on what it receives.
type recorder struct {
	received chan string // with the suffix "." if last was set
	closed   chan error
}

func newRecorder() *recorder { return &recorder{make(chan string, 100), make(chan error, 100)} }

func (r *recorder) Received(data []byte, last bool) {
	text := string(data)
	if last {
		text += "."
	}
	r.received <- text
}

func (r *recorder) Closed(err error) { r.closed <- err }

// adopt returns a Conn in a separate Poller, which must be empty at the end.
func adopt(t *testing.T) (c *Conn, r *recorder, far *net.TCPConn) {
	t.Helper()
	far, near := connPair(t)
	c, r = new(Conn), newRecorder()
	p := NewPoller()
	if err := p.Adopt(c, near, r); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); p.Wait() })
	return c, r, far
}

// The memory of an idle stream depends on the size of a Conn: see pollConn in package sse.
func TestConnIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); size > 48 {
		t.Errorf("a Conn takes %d bytes", size)
	}
}

func TestConnReportsWhatThePeerDoes(t *testing.T) {
	for name, test := range map[string]struct {
		leave func(far *net.TCPConn)
		want  error
	}{
		"FIN":         {func(far *net.TCPConn) { far.Close() }, io.EOF},
		"half closed": {func(far *net.TCPConn) { far.CloseWrite() }, io.EOF},
		"RST":         {func(far *net.TCPConn) { far.SetLinger(0); far.Close() }, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, r, far := adopt(t)
			for _, text := range []string{"hello", "again"} {
				io.WriteString(far, text)
				if got := <-r.received; got != text {
					t.Errorf("received %q, want %q", got, text)
				}
			}
			test.leave(far)
			if err := <-r.closed; err != test.want || c.Err() != test.want {
				t.Errorf("closed with %v, Err is %v, want %v", err, c.Err(), test.want)
			}
			if n := c.BytesReceived(); n != len("helloagain") {
				t.Errorf("%d bytes received", n)
			}
			if err := c.SetHandler(newRecorder()); err != test.want {
				t.Errorf("another handler: %v", err)
			}
		})
	}
}

// Bytes that a peer sends together with a FIN are received with last set.
func TestConnReportsTheLastBytesAsSuch(t *testing.T) {
	far, near := connPair(t)
	io.WriteString(far, "hello")
	far.Close()
	for start := time.Now(); ; time.Sleep(time.Millisecond) { // until the FIN has arrived, too
		info, err := tcpInfo(near)
		if err != nil || time.Since(start) > 10*time.Second {
			t.Fatal("the FIN is missing", err)
		}
		if info.State == unix.BPF_TCP_CLOSE_WAIT {
			break
		}
	}
	p, c, r := NewPoller(), new(Conn), newRecorder()
	if err := p.Adopt(c, near, r); err != nil {
		t.Fatal(err)
	}
	if got, err := <-r.received, <-r.closed; got != "hello." || err != io.EOF {
		t.Errorf("received %q, %v", got, err)
	}
	c.Close()
	p.Wait()
}

func tcpInfo(conn *net.TCPConn) (info *unix.TCPInfo, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	return info, errors.Join(e, err)
}

// Each byte and the end reach exactly one handler, even if the handler is replaced meanwhile.
func TestSetHandlerLosesNothing(t *testing.T) {
	for range 200 {
		c, first, far := adopt(t)
		second := newRecorder()
		go func() {
			io.WriteString(far, "x")
			far.Close()
		}()
		err := c.SetHandler(second)
		for start := time.Now(); len(first.closed)+len(second.closed) == 0; time.Sleep(time.Microsecond) {
			if time.Since(start) > 10*time.Second {
				t.Fatal("no handler is informed of the end")
			}
		}
		if replaced := len(second.closed) == 1; replaced != (err == nil) || len(first.received)+len(second.received) != 1 {
			t.Fatalf("SetHandler: %v; first %d, %d; second %d, %d", err, len(first.received), len(first.closed), len(second.received), len(second.closed))
		}
		c.Close()
	}
}

func TestWritesOfAConn(t *testing.T) {
	c, _, far := adopt(t)
	var want bytes.Buffer
	var bufs net.Buffers
	for i := range 3000 { // more than one writev accepts
		text := []byte(fmt.Sprintf("%07d\n", i))
		bufs = append(bufs, text)
		want.Write(text)
	}
	large := bytes.Repeat([]byte("x"), 16<<20)
	bufs = append(bufs, large)
	want.Write(large)
	got := make(chan []byte)
	go func() {
		all, _ := io.ReadAll(far)
		got <- all
	}()
	total, waits := int64(0), 0
	for {
		n, writable, err := c.WriteOrWait(&bufs)
		total += n
		if err == nil {
			break
		}
		if err != ErrWouldBlock {
			t.Fatal(err)
		}
		waits++
		<-writable
	}
	c.Close()
	if all := <-got; !bytes.Equal(all, want.Bytes()) || total != int64(want.Len()) || waits == 0 {
		t.Errorf("%d bytes arrived, %d were written with %d waits; want %d", len(all), total, waits, want.Len())
	}
}

// A waiting writer is woken when its write can no longer succeed.
func TestWaitingWriterIsWoken(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(c *Conn, far *net.TCPConn)
		want error
	}{
		"canceled": {func(c *Conn, _ *net.TCPConn) { c.CancelWrites() }, net.ErrClosed},
		"closed":   {func(c *Conn, _ *net.TCPConn) { c.Close() }, net.ErrClosed},
		"reset":    {func(_ *Conn, far *net.TCPConn) { far.SetLinger(0); far.Close() }, syscall.EPIPE}, // the read receives the reset
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _, far := adopt(t)
			for {
				bufs := net.Buffers{make([]byte, 1<<20)}
				_, writable, err := c.WriteOrWait(&bufs)
				if err == nil {
					continue
				}
				if test.end != nil {
					go test.end(c, far)
					test.end = nil
				}
				if err != ErrWouldBlock {
					if err != test.want && !(test.want == syscall.EPIPE && err == syscall.ECONNRESET) {
						t.Errorf("the write fails with %v, want %v", err, test.want)
					}
					if failure := c.Err(); test.want == syscall.EPIPE && failure != syscall.ECONNRESET {
						t.Errorf("the first error is %v", failure)
					}
					return
				}
				select {
				case <-writable:
				case <-time.After(10 * time.Second):
					t.Fatal("the writer is not woken")
				}
			}
		})
	}
}

// A detached file descriptor is still connected, and no longer in the Poller.
func TestDetach(t *testing.T) {
	c, r, far := adopt(t)
	fd := c.Detach()
	c.poller.Wait()
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(far, "hello")
	b := make([]byte, 10)
	if n, err := conn.Read(b); string(b[:n]) != "hello" || len(r.received) > 0 {
		t.Errorf("read %q, %v; the handler received %d", b[:n], err, len(r.received))
	}
	if c.Detach() != -1 {
		t.Error("a second Detach returns a file descriptor")
	}
}

// An event of a closed connection does not reach the next connection with the same file
// descriptor.
func TestStaleEventIsDropped(t *testing.T) {
	c, _, _ := adopt(t)
	stale := unix.EpollEvent{Fd: c.fd, Pad: int32(c.gen) - 1}
	if c, a := c.poller.find(stale); c != nil || a != nil {
		t.Error("the stale event is dispatched")
	}
	stale.Pad++
	if got, _ := c.poller.find(stale); got != c {
		t.Error("a current event is dropped")
	}
}

// A peer can have an IPv4, an IPv6 or an IPv4-mapped IPv6 address.
func TestAcceptorReportsThePeer(t *testing.T) {
	for network, address := range map[string]string{"tcp4": "127.0.0.1:0", "tcp6": "[::1]:0", "tcp": ":0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		p, h := NewPoller(), &acceptRecorder{fds: make(chan int, 100), from: make(chan netip.AddrPort, 100)}
		a, err := p.NewAcceptor(l.(*net.TCPListener), h)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if from := <-h.from; from.String() != netip.MustParseAddrPort(conn.LocalAddr().String()).String() {
				t.Errorf("the peer is %v, want %v", from, conn.LocalAddr())
			}
			unix.Close(<-h.fds)
			conn.Close()
		}
		a.Close()
		a.Close()
		p.Wait()
		l.Close()
	}
}

type acceptRecorder struct {
	fds    chan int
	from   chan netip.AddrPort
	failed chan error
}

func (r *acceptRecorder) Accepted(fd int, from netip.AddrPort) { r.fds <- fd; r.from <- from }
func (r *acceptRecorder) AcceptFailed(err error)               { r.failed <- err }

// While the Acceptor is paused, connections wait in the kernel.
func TestAcceptorPauses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p, h := NewPoller(), &acceptRecorder{fds: make(chan int, 100), from: make(chan netip.AddrPort, 100)}
	a, err := p.NewAcceptor(l.(*net.TCPListener), h)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wait()
	defer a.Close()
	a.Pause(true)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	select {
	case <-h.fds:
		t.Error("a connection is accepted during the pause")
	case <-time.After(50 * time.Millisecond):
	}
	a.Pause(false)
	unix.Close(<-h.fds)
}

// If file descriptors run out, the Acceptor reports an error, and accepts the same connection later.
func TestAcceptorWithoutDescriptors(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := NewPoller()
	h := &acceptRecorder{fds: make(chan int, 100), from: make(chan netip.AddrPort, 100), failed: make(chan error, 100)}
	a, err := p.NewAcceptor(l.(*net.TCPListener), h)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Wait()
	defer a.Close()
	a.Pause(true)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	free := useUpDescriptors(t)
	a.Pause(false)
	if err := <-h.failed; !errors.Is(err, unix.EMFILE) {
		t.Errorf("it reports %v", err)
	}
	free()
	unix.Close(<-h.fds)
}

// useUpDescriptors uses all file descriptors of the process until free is called.
func useUpDescriptors(t *testing.T) (free func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 100
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var used []int
	free = sync.OnceFunc(func() {
		for _, fd := range used {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(free)
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			return free
		}
		used = append(used, fd)
	}
}
