package sse

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"usercast/hub"
)

// setHead puts the head of every stream, refusals included, into h.
func setHead(h http.Header) {
	maps.Copy(h, streamHead)
}

// streamHead is not to be changed.
var streamHead = http.Header{
	"Content-Type":           {mediaType},
	"Cache-Control":          {"no-cache, no-store, no-transform"},
	"X-Accel-Buffering":      {"no"},
	"X-Content-Type-Options": {"nosniff"},
}

// open writes the head and the opening block and returns the wire for the rest,
// or why the stream ends before it has begun. A plain HTTP/1 connection is
// detached from net/http; detached then says that the handler may return at once.
//
// It must be detached before the head: after WriteHeader, net/http has announced
// chunks, and frames that all streams share would corrupt the body.
func (h *Handler) open(w http.ResponseWriter, r *http.Request, c *hub.Client, opening []byte) (wr wire, detached bool, failure hub.Reason) {
	setHead(w.Header())
	p := patience{h.cfg.WriteTimeout, c}
	wr, gone := takeSocket(r, c)
	if gone != 0 {
		return nil, false, gone
	}
	if wr != nil {
		return wr, true, writeHead(wr, w.Header(), opening)
	}
	if r.ProtoMajor == 1 && r.TLS == nil {
		conn, _, err := http.NewResponseController(w).Hijack()
		switch {
		case err == nil:
			wr, failure := h.detach(conn, w.Header(), opening, p)
			return wr, true, failure
		case !errors.Is(err, http.ErrNotSupported):
			return nil, false, hub.ReasonFailed
		}
	}
	rw := newResponseWire(w, r, p)
	w.WriteHeader(http.StatusOK)
	_, err := rw.write(&net.Buffers{opening})
	switch {
	case errors.Is(err, http.ErrNotSupported):
		h.log.Error("cannot stream: the response writer does not flush; a middleware may be in the way")
		return nil, false, hub.ReasonFailed
	case err != nil:
		return nil, false, rw.cause(err)
	}
	return rw, false, 0
}

// detach answers on a connection that was taken from net/http.
func (h *Handler) detach(conn net.Conn, header http.Header, opening []byte, p patience) (wire, hub.Reason) {
	if s, ok := conn.(*socket); ok {
		conn = s.TCPConn
	}
	wr := h.wireOf(conn, p)
	if cause := writeHead(wr, header, opening); cause != 0 {
		return nil, cause
	}
	if w, ok := wr.(*connWire); ok {
		w.reading.Add(1) // wait, to which the stream sees
	}
	return wr, 0
}

// writeHead sends the head and the opening block, or closes the wire. The response has
// no length and no chunks: its body ends with the connection, for HTTP/1.0
// clients too (RFC 9112, section 6.3). What middleware has put into the header
// goes out as well.
func writeHead(wr wire, header http.Header, opening []byte) hub.Reason {
	header["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	header["Connection"] = []string{"close"}
	head := heads.Get().(*bytes.Buffer)
	defer heads.Put(head)
	head.Reset()
	head.WriteString("HTTP/1.1 200 OK\r\n")
	header.Write(head)
	head.WriteString("\r\n")
	head.Write(opening)

	if _, err := wr.write(&net.Buffers{head.Bytes()}); err != nil {
		defer wr.close()
		return wr.cause(err)
	}
	return 0
}

// heads are buffers that nothing is written from.
var heads = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// wireOf parks a connection where that can be done.
func (h *Handler) wireOf(conn net.Conn, p patience) wire {
	if tcp, ok := conn.(*net.TCPConn); ok && !h.cfg.Portable {
		if w, err := h.lot.park(tcp, p.client); err == nil {
			return w
		} else if !errors.Is(err, errors.ErrUnsupported) {
			h.log.Debug("a stream is not parked", slog.Any("error", err)) // out of descriptors
		}
	}
	conn.SetReadDeadline(time.Time{}) // net/http's, for the request's head; if it fails, so does the first write
	return newConnWire(conn, p)
}

// maxBody is how many bytes the body of a request may have, of which nothing is used.
const maxBody = 4 << 10

// bodyTime is how long the body of a request may take.
const bodyTime = 5 * time.Second

// discardBody reads the body of an HTTP/1 request: before its end net/http does not notice
// that the client leaves. The error is io.ErrUnexpectedEOF if it left in the middle of it.
func discardBody(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor != 1 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	// A server without deadlines (a recorder in a test) waits as long as its own reader.
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTime))
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil { // else the server must not wait for the rest either
		rc.SetReadDeadline(time.Time{})
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return errors.New("the request body is too large; send none")
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return errors.New("the request body is incomplete; send none")
	}
	return nil
}
