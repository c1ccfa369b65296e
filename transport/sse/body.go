package sse

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// maxBody is the maximum size of a request body in bytes. Bodies are discarded.
const maxBody = 4 << 10

// bodyTime is the maximum time in which the body of a request must arrive.
const bodyTime = 5 * time.Second

// discardBody reads the body of an HTTP/1 request: net/http notices only after its end that the client
// disconnects. The error is io.ErrUnexpectedEOF if the client disconnected before the end of the body.
func discardBody(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor != 1 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	// The error can be ignored: a server might not support deadlines (a recorder in a test).
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTime))
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil { // otherwise the deadline also stops the server from waiting for the rest
		rc.SetReadDeadline(time.Time{})
	}
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return errors.New("the request body is too large; send no body")
	}
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return errors.New("the request body is incomplete; send no body")
	}
	return nil
}
