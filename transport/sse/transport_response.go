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

// A responseConn writes through net/http: for HTTP/2, TLS, and servers whose
// connections cannot be taken over. Its handler must not return before the stream
// is done.
type responseConn struct {
	patience
	w      http.ResponseWriter
	rc     *http.ResponseController
	ctx    context.Context           // the request's: it ends when the peer leaves
	tcp    *tcpConn                  // nil: not known
	armed  atomic.Pointer[time.Time] // the deadline of the write under way, or that has passed
	closed chan struct{}
	once   sync.Once
}

// writeChunk is how much is written under one deadline. HTTP/2 resets a stream
// whose deadline passes, however much of the write was taken: the smaller, the
// slower a reader may be. It is what net/http buffers.
const writeChunk = 4 << 10

func newResponseConn(w http.ResponseWriter, r *http.Request, p patience) *responseConn {
	rc := http.NewResponseController(w)
	// The server's ReadTimeout is for the request. net/http goes on reading for the
	// end of the connection, and a server without deadlines (a recorder) needs none lifted.
	rc.SetReadDeadline(time.Time{})
	tcp, _ := connOf[*tcpConn](r)
	return &responseConn{patience: p, w: w, rc: rc, ctx: r.Context(), tcp: tcp, closed: make(chan struct{})}
}

// tryWrite leaves everything to write: net/http does not say what would block.
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
			return 0, err // what was buffered and what was sent cannot be distinguished
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

// timed does one step of writing under the deadline: arm, write, clear. One left
// armed on an idle stream resets it on HTTP/2 and breaks the end of the body on
// HTTP/1.1.
func (w *responseConn) timed(step func() error) error {
	deadline := w.limit(time.Now().Add(w.writeTimeout))
	w.armed.Store(&deadline)
	// A server without deadlines (a recorder in a test) is written to without.
	if err := w.rc.SetWriteDeadline(deadline); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	select {
	case <-w.closed: // interrupt may have set its deadline before we set ours
		return net.ErrClosed
	default:
	}
	err := step()
	if w.late() {
		return os.ErrDeadlineExceeded // HTTP/2 says no more than that the stream is closed
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
		return w.gone()
	case <-w.closed:
		return hub.ReasonFailed // the reason is known already
	}
}

func (w *responseConn) reason(err error) hub.Reason {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return w.stalled()
	case w.ctx.Err() == nil && errors.Is(err, net.ErrClosed):
		return hub.ReasonFailed // by ourselves: the reason is known already
	}
	// An HTTP/2 server tells writers that a connection is gone before it ends the
	// contexts of its requests.
	return w.gone()
}

// gone says why the request's context has ended.
func (w *responseConn) gone() hub.Reason {
	switch {
	case w.late(): // the deadline has reset the stream
		return w.stalled()
	case w.tcp != nil && w.tcp.vanished.Load():
		return hub.ReasonDead
	}
	return hub.ReasonClosed
}

// stalled says why nothing was taken for the write timeout.
func (w *responseConn) stalled() hub.Reason {
	if w.tcp != nil && (w.tcp.vanished.Load() || w.tcp.isSilent()) {
		return hub.ReasonDead
	}
	return hub.ReasonSlow
}

func (w *responseConn) close() { w.once.Do(func() { close(w.closed) }) }
