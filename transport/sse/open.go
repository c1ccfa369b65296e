package sse

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"sync"
	"time"

	"usercast/hub"
)

// setHead adds the header fields of every stream, including temporary rejections, to h.
func setHead(h http.Header) {
	maps.Copy(h, streamHead)
}

// streamHead is immutable.
var streamHead = http.Header{
	"Content-Type":           {mediaType},
	"Cache-Control":          {"no-cache, no-store, no-transform"},
	"X-Accel-Buffering":      {"no"},
	"X-Content-Type-Options": {"nosniff"},
}

// open writes the head and the opening block of a response. It returns the transport for the rest,
// or the reason if the stream ends before it has begun. It takes cleartext HTTP/1 connections over
// from net/http; detached is then true, and the handler can return immediately. The client is nil for
// a rejection.
//
// The connection must be taken over before the head is written: after WriteHeader, net/http has
// announced chunked encoding, and frames are written without chunk headers.
func (h *Handler) open(w http.ResponseWriter, r *http.Request, client *hub.Client, opening []byte) (t transport, detached bool, failure hub.Reason) {
	setHead(w.Header())
	t, failure = takeFast(r, client)
	if failure != 0 {
		return nil, false, failure
	}
	if t != nil {
		return t, true, writeHead(t, w.Header(), opening)
	}
	p := patience{&h.settings, client}
	if r.ProtoMajor == 1 && r.TLS == nil {
		conn, _, err := http.NewResponseController(w).Hijack()
		switch {
		case err == nil:
			t, failure := h.takeOver(conn, w.Header(), opening, p)
			return t, true, failure
		case !errors.Is(err, http.ErrNotSupported):
			return nil, false, hub.ReasonFailed
		}
	}
	rc := newResponseConn(w, r, p)
	w.WriteHeader(http.StatusOK)
	_, err := rc.write(&net.Buffers{opening})
	switch {
	case errors.Is(err, http.ErrNotSupported):
		h.log.Error("streaming not supported, response writer cannot flush",
			slog.String("hint", "use middleware whose http.ResponseWriter has Unwrap or Flush"))
		return nil, false, hub.ReasonFailed
	case err != nil:
		return nil, false, rc.reason(err)
	}
	return rc, false, 0
}

// takeOver writes the response on a connection that was hijacked from net/http.
func (h *Handler) takeOver(conn net.Conn, header http.Header, opening []byte, p patience) (transport, hub.Reason) {
	if limited, ok := findConn[*limitedConn](conn); ok {
		p.connSettings = limited.settings
	}
	if s, ok := findSocket(conn); ok && !h.cfg.Portable {
		t, err := p.adopt(h.poller, s)
		if err == nil {
			return t, writeHead(t, header, opening)
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			h.log.Debug("cannot add stream to the poller, using a goroutine instead", slog.Any("error", err)) // out of file descriptors
		}
	}
	conn.SetReadDeadline(time.Time{}) // clears the deadline that net/http set for the head; if this fails, so does the first write
	t := newHijackedConn(conn, p)
	if failure := writeHead(t, header, opening); failure != 0 {
		return nil, failure
	}
	t.reading.Add(1) // the stream calls wait
	return t, 0
}

// writeHead writes the head and the opening block. If that fails, it closes the transport. The
// response has neither a length nor chunked encoding: its body ends with the connection, which also works for
// HTTP/1.0 clients (RFC 9112, section 6.3). The head includes fields that middleware has set.
func writeHead(t transport, header http.Header, opening []byte) hub.Reason {
	header["Date"] = []string{time.Now().UTC().Format(http.TimeFormat)}
	header["Connection"] = []string{"close"}
	head := heads.Get().(*bytes.Buffer)
	defer heads.Put(head)
	head.Reset()
	head.WriteString("HTTP/1.1 200 OK\r\n")
	header.Write(head)
	head.WriteString("\r\n")
	head.Write(opening)

	if _, err := t.write(&net.Buffers{head.Bytes()}); err != nil {
		defer t.close()
		return t.reason(err)
	}
	return 0
}

// heads is a pool of buffers for writeHead.
var heads = sync.Pool{New: func() any { return new(bytes.Buffer) }}
