package sse

import (
	"cmp"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"usercast/hub"
)

// A connWire is a connection taken over from net/http. The body ends with the
// connection, so a frame's bytes are the same for every stream.
type connWire struct {
	patience
	conn        net.Conn
	trial       trial
	interrupted atomic.Bool
	scratch     [64]byte // what the peer sends is read here and forgotten

	// The kernel tells once why a socket has failed, to whoever comes first: the
	// read that waits all the time or a write. The other one hears no more than
	// "end of file" or "broken pipe", and looks here.
	reading sync.WaitGroup // wait has yet to return
	left    hub.Reason     // what it returned
	writing sync.Mutex     // held during a write
	failed  hub.Reason     // guarded by writing: what a write was told
}

func newConnWire(conn net.Conn, p patience) *connWire {
	w := &connWire{patience: p, conn: conn}
	w.trial.init(conn)
	return w
}

// chatter is how many bytes a peer may send after its request. A browser sends
// none; one that goes on and on costs a wake-up each time.
const chatter = 64 << 10

// timeoutSteps is how finely write sees when the peer last took something. A stream
// whose reader has stopped costs that many wake-ups and then ends.
const timeoutSteps = 16

// write gives up when the peer has taken nothing for the timeout. One that takes a
// large write bit by bit is waited for: the kernel tells how much it took when a
// deadline passes, so the timeout is waited for in steps.
func (w *connWire) write(bufs *net.Buffers) (n int64, err error) {
	w.writing.Lock()
	defer w.writing.Unlock()
	defer func() {
		if gaveUp(err) {
			w.failed = w.cause(err)
		}
	}()
	return w.writePatiently(bufs)
}

// try writes one message, which mostly fits into the socket's buffer, without a
// deadline: setting one costs a timer, a quarter of the user time of a delivery.
func (w *connWire) try(bufs *net.Buffers) (n int64, err error) {
	if len(*bufs) != 1 {
		return 0, errFull
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	if w.interrupted.Load() {
		return 0, os.ErrDeadlineExceeded
	}
	k, err := w.trial.write((*bufs)[0])
	if err != nil {
		if gaveUp(err) {
			w.failed = w.cause(err)
		}
		return 0, err
	}
	consume(bufs, k)
	if len(*bufs) > 0 {
		err = errFull
	}
	return int64(k), err
}

func (w *connWire) writePatiently(bufs *net.Buffers) (n int64, err error) {
	// One left armed would fail the next try.
	defer func() {
		if err == nil {
			err = w.conn.SetWriteDeadline(time.Time{})
		}
	}()
	now := time.Now()
	for last := now; ; now = time.Now() { // last: when the step began in which something was taken
		giveUp := w.limit(last.Add(w.timeout))
		deadline := now.Add(w.timeout / timeoutSteps)
		if deadline.After(giveUp) {
			deadline = giveUp
		}
		if err := w.conn.SetWriteDeadline(deadline); err != nil {
			return n, err
		}
		if w.interrupted.Load() { // it may have set its deadline before we set ours
			return n, os.ErrDeadlineExceeded
		}
		took, err := w.writeOnce(bufs)
		n += took
		if took > 0 {
			last = now
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) || took == 0 && !time.Now().Before(giveUp) {
			return n, err
		}
	}
}

// writeOnce sends all buffers in one system call. Connections other than the
// kernel's own would make it one for each buffer.
func (w *connWire) writeOnce(bufs *net.Buffers) (int64, error) {
	if len(*bufs) > 1 {
		switch w.conn.(type) {
		case *net.TCPConn, *net.UnixConn:
			return bufs.WriteTo(w.conn)
		}
		*bufs = net.Buffers{slices.Concat(*bufs...)}
	}
	n, err := w.conn.Write((*bufs)[0])
	(*bufs)[0] = (*bufs)[0][n:]
	return int64(n), err
}

func (w *connWire) interrupt() {
	w.interrupted.Store(true)
	w.conn.SetWriteDeadline(time.Unix(1, 0))
}

func (w *connWire) wait() hub.Reason {
	w.left = w.read()
	w.reading.Done()
	return w.left
}

// read reads until the peer leaves.
func (w *connWire) read() hub.Reason {
	for n := 0; n < chatter; {
		k, err := w.conn.Read(w.scratch[:])
		if err != nil {
			return w.cause(err)
		}
		n += k
	}
	return hub.ReasonFailed
}

func (w *connWire) cause(err error) hub.Reason {
	switch {
	case errors.Is(err, io.EOF):
		if !hasFailed(w.conn) { // a FIN; a write may wait for long
			return hub.ReasonClosed
		}
		w.writing.Lock()
		defer w.writing.Unlock()
		return cmp.Or(w.failed, hub.ReasonClosed)
	case errors.Is(err, syscall.ECONNRESET):
		return hub.ReasonClosed
	case errors.Is(err, syscall.EPIPE):
		w.reading.Wait()
		return cmp.Or(w.left, hub.ReasonClosed)
	case errors.Is(err, os.ErrDeadlineExceeded), gaveUp(err):
		// Both a reader that stopped and a peer that vanished end here:
		// TCP_USER_TIMEOUT counts a closed window as well. The former
		// acknowledges probes of its window, each after twice the time of the one
		// before: the last answer is about half the timeout old at most. The
		// latter has been silent for nearly all of it.
		if acknowledges(w.conn, w.timeout*3/4) {
			return hub.ReasonSlow
		}
		return hub.ReasonDead
	}
	return hub.ReasonFailed
}

func (w *connWire) close() { w.conn.Close() }

// gaveUp reports whether the kernel has waited in vain for an acknowledgement. It then
// says what it has heard meanwhile, if anything: a neighbour that does not answer ARP
// or a router makes it "no route to host", a firewall "connection refused".
func gaveUp(err error) bool {
	for _, why := range []syscall.Errno{
		syscall.ETIMEDOUT, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ECONNREFUSED,
	} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}
