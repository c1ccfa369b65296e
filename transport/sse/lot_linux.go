package sse

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A lot watches sockets that are parked: one epoll, and one goroutine that waits for
// it, however many there are. Both are there while there is a socket.
type lot struct {
	timeout time.Duration // immutable: how long a reader may take nothing

	mu       sync.Mutex
	none     *sync.Cond // nobody watches any more
	watchers int
	wires    []*parkedWire // by descriptor
	in       int
	turn     uint32
	epoll    *os.File // nil: nothing is watched
	fd       int      // of epoll

	front *front // whose listener is watched; nil: none
}

func newLot(timeout time.Duration) *lot {
	l := &lot{timeout: timeout}
	l.none = sync.NewCond(&l.mu)
	return l
}

// wait returns when nothing is watched and the goroutine has gone; with streams, it is
// to wait for them, else it waits only if there are none.
func (l *lot) wait(streams bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.watchers > 0 && l.front == nil && (streams || l.in == 0) {
		l.none.Wait()
	}
}

// Of a parked socket one wants to know when the peer is gone. Edge-triggered: what is
// told once is not told again and again until the writer has closed the socket.
const parkedEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// add watches the socket of w, which must be open.
func (l *lot) add(w *parkedWire) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoll == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	l.turn++
	w.turn = l.turn
	if missing := int(w.fd) + 1 - len(l.wires); missing > 0 {
		l.wires = append(l.wires, make([]*parkedWire, missing)...)
	}
	l.wires[w.fd] = w
	l.in++
	event := l.event(w, parkedEvents)
	if err := controlEpoll(l.fd, unix.EPOLL_CTL_ADD, int(w.fd), &event); err != nil {
		l.forget(w)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// event is what the epoll keeps of a socket. An event may be read after its socket
// was closed and the descriptor is another's: turn tells.
func (l *lot) event(w *parkedWire, events uint32) unix.EpollEvent {
	return unix.EpollEvent{Events: events, Fd: w.fd, Pad: int32(w.turn)}
}

// modify says whether one also wants to know when the peer takes more. w.mu is held.
func (l *lot) modify(w *parkedWire, room bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.fd < 0 {
		return
	}
	events := uint32(parkedEvents)
	if room {
		events |= unix.EPOLLOUT
	}
	event := l.event(w, events)
	// If it fails, a writer that waits looks again at the end of its step.
	controlEpoll(l.fd, unix.EPOLL_CTL_MOD, int(w.fd), &event)
}

// remove forgets w, whose socket is about to be closed: with that, the kernel forgets
// it, too. w.mu is held.
func (l *lot) remove(w *parkedWire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.forget(w)
}

func (l *lot) forget(w *parkedWire) {
	l.wires[w.fd] = nil
	l.in--
	l.closeIfEmpty()
}

func (l *lot) closeIfEmpty() {
	if l.in == 0 {
		l.epoll.Close()
		l.epoll, l.wires = nil, nil
	}
}

// open makes the epoll, which Go's own poller waits for.
func (l *lot) open() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	l.epoll, l.fd = os.NewFile(uintptr(fd), "epoll"), fd
	raw, err := l.epoll.SyscallConn()
	if err != nil {
		l.epoll.Close()
		l.epoll = nil
		return err
	}
	l.watchers++
	go l.watch(raw)
	return nil
}

// watch hands out what the sockets have to say until the epoll is closed.
func (l *lot) watch(raw syscall.RawConn) {
	defer l.left()
	events := make([]unix.EpollEvent, 128)
	scratch := make([]byte, 16<<10) // what peers send is read here and forgotten
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			var err error
			if n, err = pollEpoll(int(fd), events); err != nil {
				panic(err) // not an epoll of ours
			}
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			l.happened(e, scratch)
		}
	}
}

func (l *lot) left() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.watchers--; l.watchers == 0 {
		l.none.Broadcast()
	}
}

func (l *lot) happened(e unix.EpollEvent, scratch []byte) {
	w, f := l.find(e)
	switch {
	case w != nil:
		client, cause, asks := w.happened(e.Events, scratch)
		switch {
		case asks:
			f.asks(w, e.Events, scratch)
		case cause == 0:
		case client != nil:
			client.End(cause)
		case f != nil: // else it is closed, and has ended the request's context
			f.abandon(w)
		}
	case f != nil:
		f.accept()
	}
}

// find is the socket that an event is of, and the front that it came through, or the
// front whose listener it is.
func (l *lot) find(e unix.EpollEvent) (*parkedWire, *front) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(e.Fd) < len(l.wires) {
		if w := l.wires[e.Fd]; w != nil && w.turn == uint32(e.Pad) {
			return w, l.front
		}
	}
	if l.front != nil && l.front.fd == int(e.Fd) && e.Pad == listenerTurn {
		return nil, l.front
	}
	return nil, nil
}

// listenerTurn is the turn of a listener: no socket's.
const listenerTurn = 0

// listen watches the listener of a front.
func (l *lot) listen(f *front) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.front != nil {
		return errors.New("sse: a handler has one front")
	}
	if l.epoll == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(f.fd), Pad: listenerTurn}
	if err := controlEpoll(l.fd, unix.EPOLL_CTL_ADD, f.fd, &event); err != nil {
		l.closeIfEmpty()
		return os.NewSyscallError("epoll_ctl", err)
	}
	l.front = f
	l.in++
	return nil
}

// pause stops watching the listener, or goes on.
func (l *lot) pause(f *front, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(f.fd), Pad: listenerTurn}
	if yes {
		event.Events = 0
	}
	controlEpoll(l.fd, unix.EPOLL_CTL_MOD, f.fd, &event)
}

// unlisten forgets the listener. Its descriptor shares the socket with the original's,
// so the kernel does not forget it by itself.
func (l *lot) unlisten(f *front) {
	l.mu.Lock()
	defer l.mu.Unlock()
	controlEpoll(l.fd, unix.EPOLL_CTL_DEL, f.fd, nil)
	l.front = nil
	l.in--
	l.closeIfEmpty()
}

// forsake forgets a socket that stays open.
func (l *lot) forsake(w *parkedWire) {
	l.mu.Lock()
	defer l.mu.Unlock()
	controlEpoll(l.fd, unix.EPOLL_CTL_DEL, int(w.fd), nil)
	l.forget(w)
}
