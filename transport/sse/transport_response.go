package sse

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"usercast/hub"
	"usercast/internal/netpoll"
)

// A responseConn writes through net/http: for HTTP/2, TLS, and servers whose connections
// cannot be hijacked. Its handler must not return before the stream has ended.
type responseConn struct {
	patience
	w      http.ResponseWriter
	rc     *http.ResponseController
	ctx    context.Context           // of the request; ends when the peer disconnects
	socket *socketConn               // nil if unknown
	armed  atomic.Pointer[time.Time] // deadline of the write in progress, or the one that was exceeded
	closed chan struct{}
	once   sync.Once
}

// writeChunk is the number of bytes that are written under one deadline. HTTP/2 resets a stream
// when its deadline passes, even if the peer has accepted a part. A smaller chunk therefore allows a
// slower reader. It is the size of net/http's buffer.
const writeChunk = 4 << 10

func newResponseConn(w http.ResponseWriter, r *http.Request, p patience) *responseConn {
	rc := http.NewResponseController(w)
	// The server's ReadTimeout applies to the request only, and net/http continues to read. The error
	// can be ignored: a server that does not support deadlines (a recorder in a test) did not set one.
	rc.SetReadDeadline(time.Time{})
	socket, _ := connOf[*socketConn](r)
	return &responseConn{patience: p, w: w, rc: rc, ctx: r.Context(), socket: socket, closed: make(chan struct{})}
}

// tryWrite does not write: net/http does not report whether a write would block.
func (w *responseConn) tryWrite(*net.Buffers) (int64, error) { return 0, netpoll.ErrWouldBlock }

func (w *responseConn) write(bufs *net.Buffers) (n int64, err error) {
	for len(*bufs) > 0 {
		err := w.timed(func() error {
			k, err := w.writeSome(bufs)
			n += k
			if err == nil && len(*bufs) == 0 {
				err = w.rc.Flush()
			}
			return err
		})
		if err != nil {
			return 0, err // bytes that were only buffered cannot be distinguished from those that were sent
		}
	}
	return n, nil
}

// writeSome writes the next writeChunk bytes of bufs.
func (w *responseConn) writeSome(bufs *net.Buffers) (n int64, err error) {
	for room := writeChunk; room > 0 && len(*bufs) > 0; {
		b := (*bufs)[0]
		k, err := w.w.Write(b[:min(room, len(b))])
		n += int64(k)
		room -= k
		if err != nil {
			return n, err
		}
		if (*bufs)[0] = b[k:]; k == len(b) {
			*bufs = (*bufs)[1:]
		}
	}
	return n, nil
}

// timed runs one step of writing under a deadline. It clears the deadline afterwards, which would
// otherwise reset an idle HTTP/2 stream and make the end of an HTTP/1.1 body fail.
func (w *responseConn) timed(step func() error) error {
	deadline := w.limit(time.Now().Add(w.writeTimeout))
	w.armed.Store(&deadline)
	// A server might not support deadlines (a recorder in a test).
	if err := w.rc.SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	select {
	case <-w.closed: // our deadline may have replaced that of interrupt
		return net.ErrClosed
	default:
	}
	err := step()
	if w.late() {
		return os.ErrDeadlineExceeded // the error of HTTP/2 only says that the stream is closed
	}
	w.armed.Store(nil)
	if err == nil {
		w.rc.SetWriteDeadline(time.Time{})
	}
	return err
}

// late reports whether a write has passed its deadline.
func (w *responseConn) late() bool {
	deadline := w.armed.Load()
	return deadline != nil && !time.Now().Before(*deadline)
}

func (w *responseConn) interrupt() {
	w.close()
	w.rc.SetWriteDeadline(time.Unix(1, 0))
}

func (w *responseConn) wait() hub.Reason {
	select {
	case <-w.ctx.Done():
		return w.endReason()
	case <-w.closed:
		return hub.ReasonFailed // without effect: the client already has a reason
	}
}

func (w *responseConn) reason(err error) hub.Reason {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return w.stalled()
	case w.ctx.Err() == nil && errors.Is(err, net.ErrClosed):
		return hub.ReasonFailed // closed by the hub: the client already has a reason
	}
	// When an HTTP/2 connection closes, writes fail before the contexts of its requests end.
	return w.endReason()
}

// endReason returns the reason why the request's context has ended.
func (w *responseConn) endReason() hub.Reason {
	switch {
	case w.late(): // the deadline has reset the stream
		return w.stalled()
	case w.socket != nil && w.socket.unresponsive.Load():
		return hub.ReasonDead
	}
	return hub.ReasonClosed
}

// stalled returns the reason why the peer accepted nothing for the write timeout.
func (w *responseConn) stalled() hub.Reason {
	if w.socket != nil && (w.socket.unresponsive.Load() || w.socket.isUnresponsive()) {
		return hub.ReasonDead
	}
	return hub.ReasonSlow
}

func (w *responseConn) close() { w.once.Do(func() { close(w.closed) }) }
