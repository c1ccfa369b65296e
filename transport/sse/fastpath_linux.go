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
	"time"

	"golang.org/x/sys/unix"

	"usercast/internal/netpoll"
)

// A fastListener accepts connections and waits for their requests in the poller. A simple
// request for a stream, as browsers send it, it answers itself with the server's handler: the
// connection is in the poller from its first moment to its last. All other connections pass to
// net/http through Accept, with what was read from them.
type fastListener struct {
	net.Listener // its own Accept is not called
	poller       *poller
	settings     *connSettings
	handler      http.Handler
	prefix       []byte // of a simple request: method and path
	log          *slog.Logger
	sockTimeout  time.Duration // TCP_USER_TIMEOUT
	acceptor     *netpoll.Acceptor
	ctx          context.Context // of requests; stop ends it
	stop         context.CancelFunc

	// Guarded by mu.
	mu      sync.Mutex
	changed *sync.Cond            // queue has one more, closed is set, or serving is 0
	queue   []queuedConn          // for Accept
	waiting map[*fastRequest]bool // those that have not sent a request
	timer   *time.Timer           // calls sweep; nil: waiting is empty
	serving int                   // requests
	closed  bool
	warned  time.Time
}

// A queuedConn is a connection that passes to net/http.
type queuedConn struct {
	file     *os.File
	received []byte
	hasSlot  bool
}

const (
	// requestTime is how long a connection may take to send the first byte of a request. A
	// browser opens spare ones; net/http has a limit of its own for the rest.
	requestTime = 10 * time.Second

	// sweepEvery is how often those are looked for that took longer.
	sweepEvery = requestTime / 4

	// warnEvery is the time between two warnings that nothing can be accepted.
	warnEvery = 10 * time.Second
)

// newFastListener returns a listener in place of l for a server with this handler, which
// answers requests for path without net/http if it can.
//
// The contexts of these requests end when the browser disconnects, the handler returns or the
// listener is closed, and hold neither the server nor the local address.
func (h *Handler) newFastListener(l tcpListener, path string, handler http.Handler, settings *connSettings) (net.Listener, error) {
	f := &fastListener{
		Listener: l, poller: h.poller, settings: settings, handler: handler, prefix: []byte(http.MethodGet + " " + path),
		log: h.log, sockTimeout: l.writeTimeout, waiting: make(map[*fastRequest]bool),
	}
	f.changed = sync.NewCond(&f.mu)
	f.ctx, f.stop = context.WithCancel(context.Background())
	f.mu.Lock() // until acceptor is set
	defer f.mu.Unlock()
	var err error
	if f.acceptor, err = f.poller.NewAcceptor(l.TCPListener, f); err != nil {
		return nil, err
	}
	return f, nil
}

// Accept returns the next connection for net/http. It needs one more descriptor for a
// moment. Without one the connection stays the next, and the error is the temporary one
// of package net's listeners; others wait in the kernel.
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
			tcp := conn.(*net.TCPConn)
			if err = tcp.SetKeepAlive(false); err == nil { // net.FileConn has switched it on: see Listen
				return f.wrap(tcp, next), nil
			}
			tcp.Close()
		}
		if next.hasSlot {
			f.settings.limiter.release()
		}
	}
}

func (f *fastListener) wrap(tcp *net.TCPConn, q queuedConn) net.Conn {
	conn := &tcpConn{TCPConn: tcp, writeTimeout: f.sockTimeout, received: q.received}
	if !q.hasSlot {
		return conn
	}
	return &limitedConn{wrappedConn: wrappedConn{conn}, settings: f.settings}
}

// Close accepts no more connections, ends the contexts of requests that are being
// answered, and returns when none is. The streams go on.
func (f *fastListener) Close() error {
	defer f.poller.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return net.ErrClosed
	}
	f.closed = true
	f.stop() // otherwise a server that is closed waits as long as an authenticator that does not answer
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
	if now := time.Now(); now.Sub(f.warned) >= warnEvery {
		f.warned = now
		f.log.Warn("accept failed, will retry", slog.Any("error", err))
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
	if !from.IsValid() || !f.settings.limiter.acquire() {
		f.passOn(fd, nil, false)
		return
	}
	r := &fastRequest{listener: f, conn: &pollConn{patience: patience{connSettings: f.settings}}, remote: from.String(), since: time.Now()}
	if f.poller.Add(&r.conn.Conn, fd, r) != nil {
		f.passOn(fd, nil, true)
		return
	}
	f.waiting[r] = true
	if f.timer == nil {
		f.timer = time.AfterFunc(sweepEvery, f.sweep)
	}
}

// passOn queues a connection for net/http. f.mu is held.
func (f *fastListener) passOn(fd int, received []byte, hasSlot bool) {
	f.queue = append(f.queue, queuedConn{os.NewFile(uintptr(fd), "connection"), received, hasSlot})
	f.acceptor.Pause(f.isFull())
	f.changed.Signal()
}

// isFull reports whether new connections are to wait in the kernel: one without a slot
// waits for net/http to accept it, and nothing else limits how many there are. f.mu is
// held.
func (f *fastListener) isFull() bool {
	return slices.ContainsFunc(f.queue, func(q queuedConn) bool { return !q.hasSlot })
}

// sweep closes the connections that have not sent a request for too long.
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
		f.waiting = make(map[*fastRequest]bool) // it never shrinks
	} else {
		f.timer = time.AfterFunc(sweepEvery, f.sweep)
	}
}

// dismiss closes a connection that waits for its request. f.mu is held.
func (f *fastListener) dismiss(r *fastRequest) {
	delete(f.waiting, r)
	r.conn.close()
}

// received handles the first bytes of a connection.
func (f *fastListener) received(r *fastRequest, data []byte, last bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.waiting[r] { // it was dismissed
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

// leftWithoutRequest handles the end of a connection that has sent nothing.
func (f *fastListener) leftWithoutRequest(r *fastRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.waiting[r] {
		f.dismiss(r)
	}
}

// served counts one request less.
func (f *fastListener) served() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.serving--; f.serving == 0 {
		f.changed.Broadcast()
	}
}
