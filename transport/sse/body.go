package sse

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// maxBody is how many bytes the body of a request may have, of which nothing is used.
const maxBody = 4 << 10

// bodyTime is how long the body of a request may take.
const bodyTime = 5 * time.Second

// discardBody reads the body of an HTTP/1 request: before its end net/http does not notice
// that the client disconnects. The error is io.ErrUnexpectedEOF if it disconnected in the middle of it.
func discardBody(w http.ResponseWriter, r *http.Request) error {
	if r.ProtoMajor != 1 || r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	// A server without deadlines (a recorder in a test) waits as long as its own reader.
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTime))
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil { // otherwise the server must not wait for the rest either
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
