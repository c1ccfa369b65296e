package netpoll

import (
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An AcceptHandler receives the connections of an Acceptor. Its methods are called by
// the Poller's goroutine and must not block.
type AcceptHandler interface {
	// Accepted passes a new connection: a non-blocking file descriptor, which the handler
	// then owns, and the address of the peer, which is zero if addrPort does not support it, such as that of a Unix socket.
	// It can be called once more after Acceptor.Close.
	Accepted(fd int, from netip.AddrPort)

	// AcceptFailed reports that a connection could not be accepted, for example because the process is out of
	// file descriptors or the system is out of memory. The next attempt follows after a short pause.
	AcceptFailed(err error)
}

// An Acceptor accepts connections in a Poller. Methods are safe for concurrent use.
type Acceptor struct {
	poller  *Poller
	handler AcceptHandler
	gen     uint32

	// Guarded by mu.
	mu     sync.Mutex
	fd     int32       // duplicate of the listener's; -1: closed
	paused bool        // by Pause
	retry  *time.Timer // ends the pause after an error; nil if not paused
	from   unix.RawSockaddrAny
}

// acceptBatch is the maximum number of connections that are accepted before events of other sockets.
const acceptBatch = 64

// retryPause is the length of the pause after an error.
const retryPause = 50 * time.Millisecond

// NewAcceptor accepts the connections of l, a TCP or Unix listener. The Accept method of l must not be called afterwards.
// l stays open when the Acceptor is closed.
func (p *Poller) NewAcceptor(l syscall.Conn, h AcceptHandler) (*Acceptor, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, err := duplicate(raw)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	a := &Acceptor{poller: p, handler: h, fd: int32(fd)}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gen++
	a.gen = p.gen
	// Level-triggered: the kernel reports the event again while more connections are pending.
	if err := p.register(a.fd, a.gen, unix.EPOLLIN); err != nil {
		unix.Close(fd)
		return nil, err
	}
	p.acceptors[a.fd] = a
	return a, nil
}

// Pause leaves new connections in the kernel's queue until Pause(false).
func (a *Acceptor) Pause(yes bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.paused != yes {
		a.paused = yes
		a.update()
	}
}

// update sets whether the kernel reports new connections. a.mu is held.
func (a *Acceptor) update() {
	if a.fd < 0 {
		return
	}
	events := uint32(unix.EPOLLIN)
	if a.paused || a.retry != nil {
		events = 0
	}
	a.poller.mu.Lock()
	defer a.poller.mu.Unlock()
	a.poller.modify(a.fd, a.gen, events)
}

// ready accepts the pending connections.
func (a *Acceptor) ready() {
	for range acceptBatch {
		fd, from, err := a.accept()
		switch err {
		case nil:
			a.handler.Accepted(fd, from)
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EAGAIN:
			return
		default:
			a.handler.AcceptFailed(os.NewSyscallError("accept4", err))
			return
		}
	}
}

// accept also returns EAGAIN during a pause and after Close.
func (a *Acceptor) accept() (fd int, from netip.AddrPort, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fd < 0 || a.paused || a.retry != nil {
		return 0, from, unix.EAGAIN
	}
	fd, err = accept4(int(a.fd), &a.from)
	switch err {
	case nil:
		from = addrPort(&a.from)
	case unix.EAGAIN, unix.EINTR, unix.ECONNABORTED:
	default:
		a.retry = time.AfterFunc(retryPause, a.endRetryPause)
		a.update()
	}
	return fd, from, err
}

func (a *Acceptor) endRetryPause() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.retry = nil
	a.update()
}

// Close stops accepting.
func (a *Acceptor) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.fd < 0 {
		return
	}
	if a.retry != nil {
		a.retry.Stop()
	}
	p := a.poller
	p.mu.Lock()
	defer p.mu.Unlock()
	// The listener has another file descriptor of the same socket, so the kernel does not
	// remove this one from the epoll on close.
	epollCtl(p.fd, unix.EPOLL_CTL_DEL, int(a.fd), nil)
	unix.Close(int(a.fd))
	delete(p.acceptors, a.fd)
	a.fd = -1
	p.count--
	p.closeIfEmpty()
}
