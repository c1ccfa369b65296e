package sse

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A front accepts connections and waits for their requests in the lot. A plain request
// for a stream, as browsers send it, it answers itself with the server's handler: the
// connection is parked from the first moment to the last. All others, and whatever is
// out of the ordinary in a request, go to net/http as if nothing had happened.
type front struct {
	lot     *lot
	handler http.Handler
	start   []byte // of an ordinary request: method and path
	crowd   *Crowd
	log     *slog.Logger
	timeout time.Duration // of sockets, as in listener
	fd      int           // of the listener, duplicated
	addr    net.Addr
	under   net.Listener
	ctx     context.Context // of requests; stop ends it
	stop    context.CancelFunc

	mu      sync.Mutex
	more    *sync.Cond // waiting has one more, or it is closed, or nothing is served any more
	waiting []newcomer // for Accept
	paused  bool       // no connections are taken for now
	closed  bool
	serving int                  // requests
	silent  map[*parkedWire]bool // those that have yet to ask; nil: none
	warned  time.Time
	from    unix.RawSockaddrAny // whom accept has taken last
	timer   *time.Timer         // calls sweep; nil: nobody has yet to ask
}

// asking is what the front knows of a connection that has no stream yet. The front owns
// such a connection, and its place in the crowd.
type asking struct {
	remote string // address of the peer
	since  time.Time
	cancel context.CancelFunc // ends the context of the request; nil: none was received
}

// askingTime is how long a connection may take to send the first byte of a request. A
// browser opens some to spare; net/http has a limit of its own for the rest.
const askingTime = 10 * time.Second

// Front returns a listener in place of l, which Listen has made, for a server with
// this handler: requests for the path are answered without net/http if they can be.
// Use it before Crowd.Attend. It returns l itself where nothing can be parked.
//
// The contexts of these requests end when the browser leaves, the handler returns or the
// listener is closed, and hold neither the server nor the local address.
func (h *Handler) Front(l net.Listener, path string, handler http.Handler) (net.Listener, error) {
	ours, ok := l.(listener)
	if !ok || h.cfg.Portable {
		return l, nil
	}
	raw, err := ours.Listener.(*net.TCPListener).SyscallConn()
	if err != nil {
		return nil, err
	}
	f := &front{
		lot: h.lot, handler: handler, start: []byte(http.MethodGet + " " + path), crowd: h.cfg.Crowd, log: h.log,
		timeout: ours.writeTimeout, addr: l.Addr(), under: l,
	}
	f.more = sync.NewCond(&f.mu)
	f.ctx, f.stop = context.WithCancel(context.Background())
	if e := raw.Control(func(old uintptr) { f.fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		return nil, e
	} else if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := h.lot.listen(f); err != nil {
		unix.Close(f.fd)
		return nil, err
	}
	return f, nil
}

// A newcomer is a connection that net/http has yet to turn to.
type newcomer struct {
	file   *os.File
	read   []byte // what was read from it
	placed bool   // it has its place in the crowd
}

// Accept returns the next connection that is not ours. It takes a descriptor more for a
// moment. Without one the connection stays the next, and the error is the temporary one
// of package net's listeners: the others are as well off in the kernel.
func (f *front) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for len(f.waiting) == 0 && !f.closed {
			f.more.Wait()
		}
		if f.closed {
			return nil, net.ErrClosed
		}
		next := f.waiting[0]
		conn, err := net.FileConn(next.file)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, err
		}
		f.waiting = slices.Delete(f.waiting, 0, 1)
		next.file.Close()
		f.pause(f.isFull())
		if err == nil {
			// net.FileConn has switched keep-alive on: see Listen.
			tcp := conn.(*net.TCPConn)
			if err = tcp.SetKeepAlive(false); err == nil {
				return &socket{TCPConn: tcp, timeout: f.timeout, read: next.read, placed: next.placed}, nil
			}
			tcp.Close()
		}
		if next.placed {
			f.crowd.leave()
		}
	}
}

func (f *front) Addr() net.Addr { return f.addr }

// Close lets no more connections in, ends the contexts of requests that are being
// answered, and returns when none is. The streams go on.
func (f *front) Close() error {
	defer f.lot.wait(false)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	f.closed = true
	f.stop() // else a server that is closed waits as long as an app that does not say who asks
	f.more.Broadcast()
	for _, n := range f.waiting {
		n.file.Close()
		if n.placed {
			f.crowd.leave()
		}
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	for w := range f.silent {
		f.dismiss(w, 0)
	}
	f.lot.unlisten(f)
	unix.Close(f.fd)
	err := f.under.Close()
	for f.serving > 0 {
		f.more.Wait()
	}
	return err
}

// pause stops taking connections, or goes on. f.mu is held.
func (f *front) pause(yes bool) {
	if f.paused != yes && !f.closed {
		f.paused = yes
		f.lot.pause(f, yes)
	}
}

// accept takes connections that are there. The kernel says again that there are more.
func (f *front) accept() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range acceptAtOnce {
		if f.paused || f.closed {
			return
		}
		fd, err := accept4(f.fd, &f.from)
		switch err {
		case nil:
			f.welcome(fd)
		case unix.EINTR, unix.ECONNABORTED:
		case unix.EAGAIN:
			return
		default: // out of descriptors, or of memory
			f.warn(err)
			f.pause(true)
			time.AfterFunc(acceptPause, func() {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.pause(f.isFull())
			})
		}
	}
}

// warn says why no connection is taken, once in a while. f.mu is held.
func (f *front) warn(err error) {
	if now := time.Now(); now.Sub(f.warned) >= warnEvery {
		f.warned = now
		f.log.Warn("cannot accept connections for now", slog.Any("error", os.NewSyscallError("accept4", err)))
	}
}

const warnEvery = 10 * time.Second

// acceptAtOnce is how many connections are taken before other sockets get their turn.
const acceptAtOnce = 64

// acceptPause is how long no connection is taken after one could not be.
const acceptPause = 50 * time.Millisecond

// welcome waits for the request of a connection, unless there is no place. f.mu is held.
func (f *front) welcome(fd int) {
	remote := addressOf(&f.from)
	if remote == "" || !f.crowd.enter() {
		f.handOver(fd, nil, false)
		return
	}
	w := &parkedWire{lot: f.lot, fd: int32(fd), asking: &asking{remote: remote, since: time.Now()}}
	if f.lot.add(w) != nil {
		f.handOver(fd, nil, true)
		return
	}
	if f.silent == nil {
		f.silent = make(map[*parkedWire]bool)
	}
	f.silent[w] = true
	if f.timer == nil {
		f.timer = time.AfterFunc(sweepEvery, f.sweep)
	}
}

// addressOf is "" for an address that is not plain.
func addressOf(sa *unix.RawSockaddrAny) string {
	switch sa.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), port(sa.Port)).String()
	case unix.AF_INET6:
		if sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa)); sa.Scope_id == 0 {
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), port(sa.Port)).String()
		}
	}
	return ""
}

// port is a number in network byte order.
func port(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}

// sweep dismisses those who have not asked for too long.
func (f *front) sweep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for w := range f.silent {
		f.dismiss(w, askingTime)
	}
	if f.timer = nil; len(f.silent) == 0 {
		f.silent = nil // what a wave has left
	} else {
		f.timer = time.AfterFunc(sweepEvery, f.sweep)
	}
}

// sweepEvery is how often those are looked for: so much longer they may take.
const sweepEvery = askingTime / 4

// dismiss closes a connection that has not asked for so long. f.mu is held.
func (f *front) dismiss(w *parkedWire, since time.Duration) {
	if w.stopAsking(since) != nil {
		delete(f.silent, w)
		w.close()
		f.crowd.leave()
	}
}

// asks is called when a connection that has yet to ask has something to say.
func (f *front) asks(w *parkedWire, events uint32, scratch []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fd := w.descriptor()
	if fd < 0 { // it was dismissed; from here on it cannot be
		return
	}
	n, err := receive(fd, scratch)
	switch {
	case err == unix.EAGAIN:
		return
	case err != nil || n == 0: // it left
		f.dismiss(w, 0)
		return
	}
	delete(f.silent, w)
	head := scratch[:n]
	// That it has no more to say would not be told again.
	if events&unix.EPOLLRDHUP == 0 && isOrdinary(head, f.start) {
		r := requests.Get().(*request)
		r.head = append(r.head[:0], head...)
		ctx, cancel := context.WithCancel(f.ctx)
		f.serving++
		go f.serve(ctx, cancel, w, w.received(cancel), r)
		return
	}
	w.stopAsking(0)
	f.lot.forsake(w)
	f.handOver(fd, bytes.Clone(head), true)
}

// abandon closes a connection whose peer has left while its request is being served, unless
// a stream or the response has it by now. The handler sees that in the request's context;
// however long it takes to return, it holds neither the descriptor nor the place.
func (f *front) abandon(w *parkedWire) {
	if a := w.stopAsking(0); a != nil {
		a.cancel()
		w.close()
		f.crowd.leave()
	}
}

// handOver gives a connection to net/http, with what was read from it and its place in
// the crowd. f.mu is held.
func (f *front) handOver(fd int, read []byte, placed bool) {
	f.waiting = append(f.waiting, newcomer{os.NewFile(uintptr(fd), "connection"), read, placed})
	f.pause(f.isFull())
	f.more.Signal()
}

// isFull reports whether newcomers shall wait in the kernel: one that has no place is
// waiting for net/http to turn to it, and nothing else bounds how many there are. f.mu is
// held.
func (f *front) isFull() bool {
	return slices.ContainsFunc(f.waiting, func(n newcomer) bool { return !n.placed })
}

// A request is what it takes to read one.
type request struct {
	head   []byte
	bytes  bytes.Reader
	reader *bufio.Reader
}

var requests = sync.Pool{New: func() any { return &request{reader: bufio.NewReader(nil)} }}

// serve answers one request with the server's handler. cancel ends ctx.
func (f *front) serve(ctx context.Context, cancel context.CancelFunc, w *parkedWire, remote string, r *request) {
	defer f.served()
	r.bytes.Reset(r.head)
	r.reader.Reset(&r.bytes)
	rw := &frontResponse{wire: w, header: make(http.Header)}
	defer rw.finish(f)
	defer cancel()
	req, err := http.ReadRequest(r.reader)
	requests.Put(r)
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	req.RemoteAddr = remote
	defer func() {
		// As net/http does: one request's fault is not all streams'.
		p := recover()
		if p != nil && p != http.ErrAbortHandler {
			f.log.Error("a handler panicked", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
		}
		rw.abort = rw.abort || p != nil
	}()
	f.handler.ServeHTTP(rw, req.WithContext(context.WithValue(ctx, frontKey{}, rw)))
}

func (f *front) served() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.serving--; f.serving == 0 {
		f.more.Broadcast()
	}
}
