package sse

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"time"

	"usercast/hub"
)

// setHead puts the head of every stream, refusals included, into h.
func setHead(h http.Header) {
	h.Set("Content-Type", mediaType)
	h.Set("Cache-Control", "no-cache, no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
}

// open writes the head and the opening block and returns the wire for the rest,
// or why the stream ends before it has begun. A plain HTTP/1 connection is
// detached from net/http; detached then says that the handler may return at once.
//
// It must be detached before the head: after WriteHeader, net/http has announced
// chunks, and frames that all streams share would corrupt the body.
func (h *Handler) open(w http.ResponseWriter, r *http.Request, c *hub.Client, opening []byte) (wr wire, detached bool, failure hub.Cause) {
	setHead(w.Header())
	p := patience{h.cfg.WriteTimeout, c}
	if r.ProtoMajor == 1 && r.TLS == nil {
		conn, _, err := http.NewResponseController(w).Hijack()
		switch {
		case err == nil:
			wr, failure := detach(conn, w.Header(), opening, p)
			return wr, true, failure
		case !errors.Is(err, http.ErrNotSupported):
			return nil, false, hub.ErrFailed
		}
	}
	rw := newResponseWire(w, r, p)
	w.WriteHeader(http.StatusOK)
	_, err := rw.write(&net.Buffers{opening})
	switch {
	case errors.Is(err, http.ErrNotSupported):
		h.log.Error("cannot stream: the response writer does not flush; a middleware may be in the way")
		return nil, false, hub.ErrFailed
	case err != nil:
		return nil, false, rw.cause(err)
	}
	return rw, false, 0
}

// detach answers on a connection that was taken from net/http. The response has
// no length and no chunks: its body ends with the connection, for HTTP/1.0
// clients too (RFC 9112, section 6.3). What middleware has put into the header
// goes out as well.
func detach(conn net.Conn, header http.Header, opening []byte, p patience) (wire, hub.Cause) {
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	header.Set("Connection", "close")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 200 OK\r\n")
	header.Write(&head)
	head.WriteString("\r\n")
	head.Write(opening)

	if s, ok := conn.(*socket); ok {
		conn = s.TCPConn
	}
	wr := newConnWire(conn, p)
	err := conn.SetReadDeadline(time.Time{}) // net/http's, for the request's head
	if err == nil {
		_, err = wr.write(&net.Buffers{head.Bytes()})
	}
	if err != nil {
		cause := wr.cause(err)
		conn.Close()
		return nil, cause
	}
	wr.reading.Add(1)
	return wr, 0
}
