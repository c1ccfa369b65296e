package sse

import (
	"bytes"
	"fmt"
	"net/http"
	"time"
)

// A fastResponse is the response to a fastRequest. It buffers what the handler writes. When the handler
// returns without having opened a stream, the response is sent as net/http would have sent it.
type fastResponse struct {
	aborted bool // do not send a response
	header  http.Header
	status  int         // 0: not written yet
	written http.Header // copy of header at the time when the status was written
	body    bytes.Buffer
}

func (w *fastResponse) Header() http.Header { return w.header }

// WriteHeader keeps the first final status and ignores others.
func (w *fastResponse) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status, w.written = status, w.header.Clone()
	}
}

func (w *fastResponse) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if !w.hasBody() {
		return 0, http.ErrBodyNotAllowed
	}
	return w.body.Write(b)
}

func (w *fastResponse) hasBody() bool {
	return w.status != http.StatusNoContent && w.status != http.StatusNotModified
}

// Flush does nothing. It exists because handlers check for it before they stream, and streams take
// the connection over.
func (w *fastResponse) Flush() {}

// head returns the handler's fields in sorted order, followed by those of the server, as in net/http.
func (w *fastResponse) head() []byte {
	w.WriteHeader(http.StatusOK)
	_, hasType := w.written["Content-Type"]
	_, hasDate := w.written["Date"]
	_, hasLength := w.written["Content-Length"]
	status := http.StatusText(w.status)
	if status == "" {
		status = fmt.Sprint("status code ", w.status)
	}
	omit := map[string]bool{"Connection": true, "Transfer-Encoding": true, "Content-Length": !w.hasBody()}
	omit["Content-Type"] = w.status == http.StatusNotModified

	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %03d %s\r\n", w.status, status)
	w.written.WriteSubset(&head, omit)
	if !hasDate {
		fmt.Fprintf(&head, "Date: %s\r\n", time.Now().UTC().Format(http.TimeFormat))
	}
	if w.hasBody() && !hasLength {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", w.body.Len())
	}
	if w.body.Len() > 0 && !hasType && w.written.Get("Content-Encoding") == "" {
		fmt.Fprintf(&head, "Content-Type: %s\r\n", http.DetectContentType(w.body.Bytes()))
	}
	head.WriteString("Connection: close\r\n\r\n")
	return head.Bytes()
}
