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

	"github.com/labstack/echo/v4"

	"usercast/hub"
)

// A responseWire writes through net/http: for HTTP/2, TLS, and servers whose
// connections cannot be taken over. Its handler must not return before the stream
// is done.
type responseWire struct {
	patience
	w      http.ResponseWriter
	rc     *http.ResponseController
	ctx    context.Context           // the request's: it ends when the peer leaves
	socket *socket                   // nil: not known
	armed  atomic.Pointer[time.Time] // the deadline of the write under way, or that has passed
	closed chan struct{}
	once   sync.Once
}

// writeChunk is how much is written under one deadline. HTTP/2 resets a stream
// whose deadline passes, however much of the write was taken: the smaller, the
// slower a reader may be. It is what net/http buffers.
const writeChunk = 4 << 10

func newResponseWire(w http.ResponseWriter, r *http.Request, p patience) *responseWire {
	rc := http.NewResponseController(w)
	if e, ok := w.(*echo.Response); ok {
		rc = http.NewResponseController(e.Writer) // e.Flush tells no error, and panics
	}
	// The server's ReadTimeout is for the request. net/http goes on reading for the
	// peer's leaving, and a server without deadlines (a recorder) needs none lifted.
	rc.SetReadDeadline(time.Time{})
	s, _ := r.Context().Value(socketKey{}).(*socket)
	return &responseWire{patience: p, w: w, rc: rc, ctx: r.Context(), socket: s, closed: make(chan struct{})}
}

// try leaves it all to write: net/http does not say what would block.
func (w *responseWire) try(*net.Buffers) (int64, error) { return 0, errFull }

func (w *responseWire) write(bufs *net.Buffers) (n int64, err error) {
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
			return 0, err // what was buffered and what was sent cannot be told apart
		}
	}
	return n, nil
}

// writeSome writes the next writeChunk bytes of bufs.
func (w *responseWire) writeSome(bufs *net.Buffers) (n int64, err error) {
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
func (w *responseWire) timed(step func() error) error {
	deadline := w.limit(time.Now().Add(w.timeout))
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
func (w *responseWire) late() bool {
	deadline := w.armed.Load()
	return deadline != nil && !time.Now().Before(*deadline)
}

func (w *responseWire) interrupt() {
	w.close()
	w.rc.SetWriteDeadline(time.Unix(1, 0))
}

func (w *responseWire) wait() hub.Reason {
	select {
	case <-w.ctx.Done():
		return w.gone()
	case <-w.closed:
		return hub.ReasonFailed // the cause is known already
	}
}

func (w *responseWire) cause(err error) hub.Reason {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return w.stalled()
	case w.ctx.Err() == nil && errors.Is(err, net.ErrClosed):
		return hub.ReasonFailed // by ourselves: the cause is known already
	}
	// An HTTP/2 server tells writers that a connection is gone before it ends the
	// contexts of its requests.
	return w.gone()
}

// gone says why the request's context has ended.
func (w *responseWire) gone() hub.Reason {
	switch {
	case w.late(): // the deadline has reset the stream
		return w.stalled()
	case w.socket != nil && w.socket.vanished.Load():
		return hub.ReasonDead
	}
	return hub.ReasonClosed
}

// stalled says why nothing was taken for the write timeout.
func (w *responseWire) stalled() hub.Reason {
	if w.socket != nil && (w.socket.vanished.Load() || w.socket.isSilent()) {
		return hub.ReasonDead
	}
	return hub.ReasonSlow
}

func (w *responseWire) close() { w.once.Do(func() { close(w.closed) }) }
