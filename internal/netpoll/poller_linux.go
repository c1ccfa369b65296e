package netpoll

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Poller waits for all its connections and listeners with one epoll and one goroutine. Both
// exist only while the Poller is not empty. Methods are safe for concurrent use.
type Poller struct {
	// Guarded by mu.
	mu        sync.Mutex
	ended     *sync.Cond // a goroutine has ended
	running   int        // goroutines: one, plus those whose epoll was closed and that have not ended yet
	epoll     *os.File   // nil if the Poller is empty
	fd        int        // of epoll
	count     int        // Conns and Acceptors in it
	gen       uint32
	conns     []*Conn                 // by file descriptor
	acceptors map[int32]*Acceptor     // by file descriptor
	writers   map[*Conn]chan struct{} // Conns that wait until they can write
}

// NewPoller returns an empty Poller.
func NewPoller() *Poller {
	p := &Poller{acceptors: make(map[int32]*Acceptor), writers: make(map[*Conn]chan struct{})}
	p.ended = sync.NewCond(&p.mu)
	return p
}

// Wait blocks until the goroutine of an empty Poller has ended. If the Poller is not empty, it
// returns immediately.
func (p *Poller) Wait() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.running > 0 && p.count == 0 {
		p.ended.Wait()
	}
}

// Edge-triggered: otherwise the kernel would report a peer's close again and again until the
// connection is closed on this side, too.
const connEvents = unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET

// add registers a Conn whose file descriptor is set.
func (p *Poller) add(c *Conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gen++
	c.gen = p.gen
	if err := p.register(c.fd, c.gen, connEvents); err != nil {
		return err
	}
	if missing := int(c.fd) + 1 - len(p.conns); missing > 0 {
		p.conns = append(p.conns, make([]*Conn, missing)...)
	}
	p.conns[c.fd] = c
	return nil
}

// register adds a file descriptor to the epoll. p.mu is held.
func (p *Poller) register(fd int32, gen, events uint32) error {
	if p.epoll == nil {
		if err := p.open(); err != nil {
			return err
		}
	}
	event := unix.EpollEvent{Events: events, Fd: fd, Pad: int32(gen)}
	if err := epollCtl(p.fd, unix.EPOLL_CTL_ADD, int(fd), &event); err != nil {
		p.closeIfEmpty()
		return os.NewSyscallError("epoll_ctl", err)
	}
	p.count++
	return nil
}

// modify changes the events to wait for. A failure can be ignored, because a writer also retries at
// the end of its step. p.mu is held.
func (p *Poller) modify(fd int32, gen, events uint32) {
	event := unix.EpollEvent{Events: events, Fd: fd, Pad: int32(gen)}
	epollCtl(p.fd, unix.EPOLL_CTL_MOD, int(fd), &event)
}

// remove removes a Conn. With keep, the file descriptor stays open; otherwise the caller closes it, and
// the kernel removes it from the epoll.
func (p *Poller) remove(c *Conn, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if keep {
		epollCtl(p.fd, unix.EPOLL_CTL_DEL, int(c.fd), nil)
	}
	p.conns[c.fd] = nil
	delete(p.writers, c)
	p.count--
	p.closeIfEmpty()
}

// waitWritable returns a channel that receives an item when c may be writable.
func (p *Poller) waitWritable(c *Conn) <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	writable := p.writers[c]
	if writable == nil {
		writable = make(chan struct{}, 1)
		p.writers[c] = writable
		p.modify(c.fd, c.gen, connEvents|unix.EPOLLOUT)
	}
	return writable
}

// stopWaiting cancels waitWritable.
func (p *Poller) stopWaiting(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.writers, c)
	p.modify(c.fd, c.gen, connEvents)
}

// wake wakes the goroutine that waits until c is writable, if any.
func (p *Poller) wake(c *Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.writers[c] <- struct{}{}:
	default: // no goroutine waits, or it is about to retry
	}
}

// open creates the epoll and starts the goroutine. p.mu is held.
func (p *Poller) open() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	epoll := os.NewFile(uintptr(fd), "epoll") // non-blocking: Go's own poller waits for it
	raw, err := epoll.SyscallConn()
	if err != nil {
		epoll.Close()
		return err
	}
	p.epoll, p.fd = epoll, fd
	p.running++
	go p.run(raw)
	return nil
}

func (p *Poller) closeIfEmpty() {
	if p.count == 0 {
		p.epoll.Close()
		p.epoll, p.conns = nil, nil
	}
}

// run reports events until the epoll is closed.
func (p *Poller) run(epoll syscall.RawConn) {
	defer p.end()
	events := make([]unix.EpollEvent, 128)
	buf := make([]byte, 16<<10) // for the bytes of all peers
	for {
		n := 0
		err := epoll.Read(func(fd uintptr) bool {
			var err error
			if n, err = epollWait(int(fd), events); err != nil {
				panic(err) // the file descriptor is not an epoll: a bug in this package
			}
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			p.dispatch(e, buf)
		}
	}
}

func (p *Poller) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running--
	p.ended.Broadcast()
}

func (p *Poller) dispatch(e unix.EpollEvent, buf []byte) {
	switch c, a := p.find(e); {
	case c != nil:
		c.ready(e.Events, buf)
	case a != nil:
		a.ready()
	}
}

// find returns the Conn or Acceptor of an event. It returns nil, nil if that was removed meanwhile. It
// compares the generation, because another Conn may already have the same file descriptor.
func (p *Poller) find(e unix.EpollEvent) (*Conn, *Acceptor) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if int(e.Fd) < len(p.conns) {
		if c := p.conns[e.Fd]; c != nil && c.gen == uint32(e.Pad) {
			return c, nil
		}
	}
	if a := p.acceptors[e.Fd]; a != nil && a.gen == uint32(e.Pad) {
		return nil, a
	}
	return nil, nil
}
