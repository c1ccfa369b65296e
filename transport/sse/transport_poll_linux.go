package sse

import (
	"cmp"
	"context"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"usercast/hub"
)

// A parkedWire is a socket of the kernel's and nothing else: no goroutine, no
// net.Conn, no buffer. While nothing happens to it, it is an entry in a lot.
type parkedWire struct {
	lot *lot

	interrupted atomic.Bool

	// The kernel tells once why a socket has failed, to the read or the write that
	// comes first; the other one hears "end of file" or "broken pipe". So each call
	// and the note of what it was told are one step under mu.
	mu     sync.Mutex
	fd     int32         // guarded by mu; -1 once closed
	client *hub.Client   // guarded by mu until the stream starts: nil while a front has it
	asking *asking       // guarded by mu: nil unless a front has it
	told   hub.Reason    // guarded by mu: why the peer is gone; 0: it is not
	heard  uint32        // guarded by mu: bytes that the peer sent after its request
	room   chan struct{} // guarded by mu: has an item when there may be room; nil: nobody waits

	turn uint32 // guarded by lot.mu: tells it from others that had the same descriptor
}

// park takes a connection's socket over. The connection is closed then, which the
// peer does not notice. After an error it is as it was.
func (l *lot) park(conn *net.TCPConn, c *hub.Client) (wire, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if e := raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); e != nil || err != nil {
		return nil, cmp.Or(e, err)
	}
	w := &parkedWire{lot: l, fd: int32(fd), client: c}
	if err := l.add(w); err != nil {
		unix.Close(fd)
		return nil, err
	}
	conn.Close()
	return w, nil
}

// serve takes it from the front and makes it the wire of a client. If the peer has left
// already, the result says why, and the wire stays the front's.
func (w *parkedWire) serve(c *hub.Client) hub.Reason {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told == 0 {
		w.client, w.asking = c, nil
	}
	return w.told
}

// received notes that the front has received the request, whose context cancel ends, and
// returns the address of the peer.
func (w *parkedWire) received(cancel context.CancelFunc) (remote string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asking.cancel = cancel
	return w.asking.remote
}

// descriptor is -1 once the wire is closed.
func (w *parkedWire) descriptor() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int(w.fd)
}

// stopAsking takes it from the front and returns what that knew of it, if the front had
// it until now, and for so long; else nil. The caller sees to the connection and its place.
func (w *parkedWire) stopAsking(since time.Duration) *asking {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.asking
	if a == nil || time.Since(a.since) < since {
		return nil
	}
	w.asking = nil
	return a
}

func (w *parkedWire) try(bufs *net.Buffers) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writeSome(bufs)
}

// writeSome writes as much as the socket takes, in as few calls as can be; errFull
// when it is not all. w.mu is held.
func (w *parkedWire) writeSome(bufs *net.Buffers) (n int64, err error) {
	for len(*bufs) > 0 {
		if w.fd < 0 || w.interrupted.Load() {
			return n, net.ErrClosed
		}
		var k int
		if list := *bufs; len(list) == 1 {
			k, err = send(w.fd, list[0])
		} else {
			k, err = unix.Writev(int(w.fd), list[:min(len(list), maxVector)])
		}
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return n, errFull
		case err != nil:
			w.note(err)
			return n, err
		default:
			n += int64(k)
			consume(bufs, k)
		}
	}
	return n, nil
}

// maxVector is how many buffers the kernel takes in one call (IOV_MAX).
const maxVector = 1024

// write gives up when the peer has taken nothing for the timeout, of which it sees
// the end in steps: the kernel says that there is room only when there is a lot.
func (w *parkedWire) write(bufs *net.Buffers) (n int64, err error) {
	p := patience{w.lot.timeout, w.client}
	now := time.Now()
	for last := now; ; now = time.Now() {
		k, room, err := w.writeOrWait(bufs)
		if n += k; k > 0 {
			last = now
		}
		if err != errFull {
			return n, err
		}
		giveUp := p.limit(last.Add(p.timeout))
		if !now.Before(giveUp) {
			w.stalled()
			return n, os.ErrDeadlineExceeded
		}
		step := time.NewTimer(min(giveUp.Sub(now), p.timeout/timeoutSteps))
		select {
		case <-room:
		case <-step.C:
		}
		step.Stop()
	}
}

// writeOrWait is writeSome, and sees to it that there will be an item in room once
// the peer may take more.
func (w *parkedWire) writeOrWait(bufs *net.Buffers) (n int64, room <-chan struct{}, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, err = w.writeSome(bufs)
	if waits := err == errFull; waits && w.room == nil {
		w.room = make(chan struct{}, 1)
		w.lot.modify(w, true)
	} else if !waits && w.room != nil {
		w.room = nil
		w.lot.modify(w, false)
	}
	return n, w.room, err
}

// wakeWriter is for a writer that waits for room. w.mu is held.
func (w *parkedWire) wakeWriter() {
	select {
	case w.room <- struct{}{}:
	default: // nobody waits, or it is about to look
	}
}

func (w *parkedWire) interrupt() {
	w.interrupted.Store(true)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wakeWriter()
}

// happened is called by the lot when the socket has something to say. It returns
// whose peer is gone, if it is, and why; or that the front is asked. The client is nil
// while the request is being served.
func (w *parkedWire) happened(events uint32, scratch []byte) (c *hub.Client, cause hub.Reason, asks bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asking != nil && w.asking.cancel == nil {
		return nil, 0, true
	}
	w.wakeWriter()
	if events&^unix.EPOLLOUT == 0 {
		return nil, 0, false
	}
	for w.fd >= 0 && w.told == 0 {
		n, err := receive(int(w.fd), scratch)
		switch {
		case err == unix.EAGAIN:
			return nil, 0, false
		case err != nil:
			w.note(err)
		case n == 0: // a FIN
			w.told = hub.ReasonClosed
		default:
			if w.heard += uint32(n); w.heard > chatter {
				w.told = hub.ReasonFailed
			}
		}
	}
	return w.client, w.told, false
}

// note keeps what the kernel has told. w.mu is held.
func (w *parkedWire) note(err error) {
	if w.told != 0 {
		return
	}
	switch {
	case err == unix.ECONNRESET, err == unix.EPIPE:
		w.told = hub.ReasonClosed
	case gaveUp(err):
		w.told = w.verdict()
	default:
		w.told = hub.ReasonFailed
	}
}

// stalled notes that a write has waited for too long.
func (w *parkedWire) stalled() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.told == 0 && w.fd >= 0 {
		w.told = w.verdict()
	}
}

// verdict tells a reader that has stopped from a peer that vanished: see
// connWire.cause. w.mu is held.
func (w *parkedWire) verdict() hub.Reason {
	if info, err := unix.GetsockoptTCPInfo(int(w.fd), unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || isAnswered(info, w.lot.timeout*3/4) {
		return hub.ReasonSlow
	}
	return hub.ReasonDead
}

// cause is what was told when the error came up. A write that was interrupted, or
// came after the end, has none: the client's is known already.
func (w *parkedWire) cause(error) hub.Reason {
	w.mu.Lock()
	defer w.mu.Unlock()
	return cmp.Or(w.told, hub.ReasonFailed)
}

func (w *parkedWire) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd < 0 {
		return
	}
	w.lot.remove(w)
	unix.Close(int(w.fd))
	w.fd = -1
	w.wakeWriter()
}
