package sse

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"usercast/internal/netpoll"
	"usercast/internal/unixsocket"
)

// A fastListener accepts connections and waits for their requests in the poller. It passes simple requests
// for a stream, as browsers send them, directly to the server's handler. Their connections stay in the poller
// from beginning to end. Accept returns all other connections, together with the bytes that were already
// read, for net/http.
type fastListener struct {
	net.Listener // its Accept is not called
	poller       *poller
	settings     *connSettings
	handler      http.Handler
	prefix       []byte // method and path of a simple request
	log          *slog.Logger
	sockTimeout  time.Duration // TCP_USER_TIMEOUT
	unix         bool
	sendBuffer   int // set on each socket; 0: inherited
	acceptor     *netpoll.Acceptor
	ctx          context.Context // of requests; stop ends it
	stop         context.CancelFunc

	// Guarded by mu.
	mu      sync.Mutex
	changed *sync.Cond            // queue has grown, closed was set, or serving became 0
	queue   []queuedConn          // for Accept
	waiting map[*fastRequest]bool // connections that have not sent a request yet
	timer   *time.Timer           // calls sweep; nil if waiting is empty
	serving int                   // requests in progress
	closed  bool
	warned  time.Time
}

// A queuedConn is a connection that net/http will handle.
type queuedConn struct {
	file     *os.File
	received []byte
	hasSlot  bool
}

const (
	// requestTime is the maximum time until the first byte of a request. Browsers open spare
	// connections without a request. For the rest of a request, net/http has its own limit.
	requestTime = 10 * time.Second

	// sweepEvery is the interval of the search for connections that exceed requestTime.
	sweepEvery = requestTime / 4

	// warnEvery is the minimum time between two warnings about failed accepts.
	warnEvery = 10 * time.Second
)

// newFastListener returns a listener that replaces l. It passes simple requests for path to the handler
// without net/http.
//
// The contexts of these requests end when the browser disconnects, the handler returns or the
// listener is closed. They do not contain the values http.ServerContextKey and
// http.LocalAddrContextKey.
func (h *Handler) newFastListener(l socketListener, path string, handler http.Handler, settings *connSettings) (net.Listener, error) {
	f := &fastListener{
		Listener: l, poller: h.poller, settings: settings, handler: handler, prefix: []byte(http.MethodGet + " " + path),
		log: h.log, sockTimeout: l.writeTimeout, unix: l.unix, sendBuffer: l.sendBuffer, waiting: make(map[*fastRequest]bool),
	}
	f.changed = sync.NewCond(&f.mu)
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.mu.Lock() // until acceptor is set
	defer f.mu.Unlock()
	var err error
	if f.acceptor, err = f.poller.NewAcceptor(l.Listener.(syscall.Conn), f); err != nil {
		return nil, err
	}
	return f, nil
}

// Accept returns the next connection for net/http. It briefly needs an additional file descriptor.
// If none is available, it returns a temporary error, as listeners of package net do, and the connection stays
// first in the queue. Further connections wait in the kernel.
func (f *fastListener) Accept() (net.Conn, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for len(f.queue) == 0 && !f.closed {
			f.changed.Wait()
		}
		if f.closed {
			return nil, net.ErrClosed
		}
		next := f.queue[0]
		conn, err := net.FileConn(next.file)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			return nil, err
		}
		f.queue = slices.Delete(f.queue, 0, 1)
		next.file.Close()
		f.acceptor.Pause(f.isFull())
		if err == nil {
			if tcp, ok := conn.(*net.TCPConn); ok {
				err = tcp.SetKeepAlive(false) // net.FileConn has enabled it: see Listen
			}
			if err == nil {
				return f.wrap(conn.(socket), next), nil
			}
			conn.Close()
		}
		if next.hasSlot {
			f.settings.limiter.release()
		}
	}
}

func (f *fastListener) wrap(s socket, q queuedConn) net.Conn {
	conn := &socketConn{socket: s, writeTimeout: f.sockTimeout, received: q.received}
	if !q.hasSlot {
		return conn
	}
	return &limitedConn{wrappedConn: wrappedConn{conn}, settings: f.settings}
}

// Close stops accepting connections, cancels the contexts of requests in progress, and waits for
// their handlers. Streams stay open.
func (f *fastListener) Close() error {
	defer f.poller.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	f.closed = true
	f.stop() // otherwise Close would wait for an authenticator that hangs
	f.changed.Broadcast()
	for _, q := range f.queue {
		q.file.Close()
		if q.hasSlot {
			f.settings.limiter.release()
		}
	}
	if f.timer != nil {
		f.timer.Stop()
	}
	for r := range f.waiting {
		f.dismiss(r)
	}
	f.acceptor.Close()
	err := f.Listener.Close()
	for f.serving > 0 {
		f.changed.Wait()
	}
	return err
}

// AcceptFailed implements netpoll.AcceptHandler.
func (f *fastListener) AcceptFailed(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.warn("accept failed, will retry", err)
}

// warn logs an error, unless a warning was logged recently. f.mu is held.
func (f *fastListener) warn(message string, err error) {
	if now := time.Now(); now.Sub(f.warned) >= warnEvery {
		f.warned = now
		f.log.Warn(message, slog.Any("error", err))
	}
}

// Accepted implements netpoll.AcceptHandler: it waits for the request of a connection, unless the
// limit is reached.
func (f *fastListener) Accepted(fd int, from netip.AddrPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		unix.Close(fd)
		return
	}
	remote := unixsocket.Peer
	if !f.unix {
		remote = from.String()
	}
	if err := f.prepare(fd); err != nil {
		unix.Close(fd)
		f.warn("connection closed, cannot set socket options", err)
		return
	}
	if !f.unix && !from.IsValid() || !f.settings.limiter.acquire() {
		f.passOn(fd, nil, false)
		return
	}
	r := &fastRequest{listener: f, conn: &pollConn{patience: patience{connSettings: f.settings}}, remote: remote, since: time.Now()}
	if f.poller.Add(&r.conn.Conn, fd, r) != nil {
		f.passOn(fd, nil, true)
		return
	}
	f.waiting[r] = true
	if f.timer == nil {
		f.timer = time.AfterFunc(sweepEvery, f.sweep)
	}
}

// prepare sets the options of an accepted socket that it has not inherited.
func (f *fastListener) prepare(fd int) error {
	switch {
	case f.sendBuffer == 0:
		return nil
	case f.unix:
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, f.sendBuffer)
	}
	return setOptions(uintptr(fd), f.sendBuffer, f.sockTimeout)
}

// passOn queues a connection for net/http. f.mu is held.
func (f *fastListener) passOn(fd int, received []byte, hasSlot bool) {
	f.queue = append(f.queue, queuedConn{os.NewFile(uintptr(fd), "connection"), received, hasSlot})
	f.acceptor.Pause(f.isFull())
	f.changed.Signal()
}

// isFull reports whether new connections must wait in the kernel, because a connection without a slot is
// still in the queue. This limits the number of connections without a slot. f.mu is held.
func (f *fastListener) isFull() bool {
	return slices.ContainsFunc(f.queue, func(q queuedConn) bool { return !q.hasSlot })
}

// sweep closes the connections that have not sent a request within requestTime.
func (f *fastListener) sweep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return
	}
	for r := range f.waiting {
		if time.Since(r.since) >= requestTime {
			f.dismiss(r)
		}
	}
	if f.timer = nil; len(f.waiting) == 0 {
		f.waiting = make(map[*fastRequest]bool) // frees memory: maps do not shrink
	} else {
		f.timer = time.AfterFunc(sweepEvery, f.sweep)
	}
}

// dismiss closes a connection that has not sent a request. f.mu is held.
func (f *fastListener) dismiss(r *fastRequest) {
	delete(f.waiting, r)
	r.conn.close()
}

// received handles the first bytes of a connection.
func (f *fastListener) received(r *fastRequest, data []byte, last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.waiting[r] { // already dismissed
		return
	}
	delete(f.waiting, r)
	if !last && isSimpleRequest(data, f.prefix) {
		f.serving++
		go r.serve(r.begin(f.ctx), newParser(data))
		return
	}
	f.passOn(r.conn.Detach(), bytes.Clone(data), true)
}

// closedByPeer handles the end of a connection without a request.
func (f *fastListener) closedByPeer(r *fastRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting[r] {
		f.dismiss(r)
	}
}

// served counts the end of a request.
func (f *fastListener) served() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.serving--; f.serving == 0 {
		f.changed.Broadcast()
	}
}
