package sse

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"time"

	"usercast/hub"
)

// A frontResponse is the answer to a request that the front has taken. A stream takes
// its socket; what else is written is kept until the handler returns, and then is what
// net/http would have sent.
type frontResponse struct {
	wire   *parkedWire
	abort  bool // nothing is answered
	header http.Header
	status int         // 0: none was written
	sent   http.Header // header when the status was written
	body   bytes.Buffer
}

func (rw *frontResponse) Header() http.Header { return rw.header }

// WriteHeader takes the first final status; others are not sent.
func (rw *frontResponse) WriteHeader(status int) {
	if rw.status == 0 && status >= http.StatusOK {
		rw.status, rw.sent = status, rw.header.Clone()
	}
}

func (rw *frontResponse) Write(b []byte) (int, error) {
	rw.WriteHeader(http.StatusOK)
	if !rw.hasBody() {
		return 0, http.ErrBodyNotAllowed
	}
	return rw.body.Write(b)
}

func (rw *frontResponse) hasBody() bool {
	return rw.status != http.StatusNoContent && rw.status != http.StatusNotModified
}

// Flush says that the handler streams, which only one that has taken the socket can.
func (rw *frontResponse) Flush() {}

// finish sends what a handler has answered, if the front still has the socket: no stream
// has taken it, and the peer has not left.
func (rw *frontResponse) finish(f *front) {
	if rw.wire.stopAsking(0) == nil {
		return
	}
	defer f.crowd.leave()
	defer rw.wire.close()
	if rw.abort {
		return
	}
	rw.WriteHeader(http.StatusOK)
	rw.wire.write(&net.Buffers{rw.head(), rw.body.Bytes()})
}

// head has the handler's fields in order, and then ours, as net/http's has.
func (rw *frontResponse) head() []byte {
	_, hasType := rw.sent["Content-Type"]
	_, hasDate := rw.sent["Date"]
	_, hasLength := rw.sent["Content-Length"]
	status := http.StatusText(rw.status)
	if status == "" {
		status = fmt.Sprint("status code ", rw.status)
	}
	not := map[string]bool{"Connection": true, "Transfer-Encoding": true, "Content-Length": !rw.hasBody()}
	not["Content-Type"] = rw.status == http.StatusNotModified

	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %03d %s\r\n", rw.status, status)
	rw.sent.WriteSubset(&head, not)
	if !hasDate {
		fmt.Fprintf(&head, "Date: %s\r\n", time.Now().UTC().Format(http.TimeFormat))
	}
	if rw.hasBody() && !hasLength {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", rw.body.Len())
	}
	if rw.body.Len() > 0 && !hasType && rw.sent.Get("Content-Encoding") == "" {
		fmt.Fprintf(&head, "Content-Type: %s\r\n", http.DetectContentType(rw.body.Bytes()))
	}
	head.WriteString("Connection: close\r\n\r\n")
	return head.Bytes()
}

type frontKey struct{}

// takeSocket is the socket of a request that a front has taken, as the wire of a client,
// or why the peer is gone; nil and 0 for other requests. It is found through the request,
// because middleware may hide a response writer behind another one.
func takeSocket(r *http.Request, c *hub.Client) (wire, hub.Reason) {
	rw, ok := r.Context().Value(frontKey{}).(*frontResponse)
	if !ok {
		return nil, 0
	}
	if gone := rw.wire.serve(c); gone != 0 {
		rw.abort = true // nothing is written to a peer that has left
		return nil, gone
	}
	return rw.wire, 0
}
