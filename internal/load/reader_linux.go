package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A reader reads all HTTP/1.1 streams in one goroutine with one buffer. With a goroutine per stream, wakeups and stacks
// would cost more than the reads if there are tens of thousands of streams.
type reader struct {
	tally *tally
	epoll int
	wake  int // an eventfd that close writes to
	done  chan struct{}

	// Guarded by mu.
	mu    sync.Mutex
	conns []*epollConn // index: Fd of the epoll event
	ended bool
}

type epollConn struct {
	http1
	fd int
}

// batch is how many connections are read while the tally is locked once. Other goroutines wait for the lock for up to one or
// two milliseconds.
const batch = 256

// readSize is the size of the buffer: it holds about a thousand small messages.
const readSize = 256 << 10

func newReader(t *tally) (*reader, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1})
	}
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	r := &reader{tally: t, epoll: epoll, wake: wake, done: make(chan struct{})}
	go r.run()
	return r, nil
}

// add starts to read a connection on which the request was written. It owns conn.
func (r *reader) add(conn net.Conn, s *stream) error {
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return err
	}
	// A duplicate descriptor, because the runtime's poller watches the original.
	fd := -1
	if e := raw.Control(func(conn uintptr) { fd, err = unix.FcntlInt(conn, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		err = e
	}
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		_ = unix.Close(fd)
		return net.ErrClosed
	}
	r.conns = append(r.conns, &epollConn{http1{stream: s}, fd})
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(len(r.conns) - 1)}
	if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		r.conns = r.conns[:len(r.conns)-1]
		_ = unix.Close(fd)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

func (r *reader) run() {
	defer close(r.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	events := make([]unix.EpollEvent, batch)
	conns := make([]*epollConn, 0, batch)
	buf := make([]byte, readSize)
	for {
		n, err := unix.EpollWait(r.epoll, events, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		conns = conns[:0]
		r.mu.Lock()
		for _, e := range events[:max(n, 0)] {
			if e.Fd >= 0 && r.conns[e.Fd] != nil {
				conns = append(conns, r.conns[e.Fd])
			}
		}
		ended := r.ended
		r.mu.Unlock()
		if ended || err != nil {
			return
		}
		r.tally.lock()
		for _, c := range conns {
			r.read(c, buf)
		}
		r.tally.unlock()
	}
}

// read reads once. If more bytes are left, epoll reports the connection again.
func (r *reader) read(c *epollConn, buf []byte) {
	if c.fd < 0 {
		return
	}
	n, err := unix.Read(c.fd, buf)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	t := r.tally
	t.now = t.clock()
	t.reads++
	if err == nil && n > 0 {
		t.bytes += int64(n)
		if c.receive(buf[:n]) {
			return
		}
	}
	if err == nil {
		err = io.EOF
	}
	c.stream.end(reasonFor(err))
	_ = unix.Close(c.fd)
	c.fd = -1
}

// close closes all connections.
func (r *reader) close() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	_, _ = unix.Write(r.wake, []byte{7: 1})
	<-r.done
	for _, c := range r.conns {
		if c.fd >= 0 {
			_ = unix.Close(c.fd)
		}
	}
	_ = unix.Close(r.wake)
	_ = unix.Close(r.epoll)
}
