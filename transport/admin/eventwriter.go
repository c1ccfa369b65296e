package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	eventsPatience = 10 * time.Second // timeout of a write, after which the stream ends
	eventsPing     = 15 * time.Second // interval of pings
)

// An eventWriter writes server-sent events to an operator. Only one goroutine may use it.
type eventWriter struct {
	to      http.ResponseWriter
	control *http.ResponseController
	buf     bytes.Buffer // what the next flush writes
}

// openEvents writes the head of a stream and the delay after which the client reconnects.
func openEvents(c echo.Context, retry time.Duration) (*eventWriter, error) {
	s := &eventWriter{to: c.Response(), control: http.NewResponseController(c.Response())}
	// The server's read timeout would end the stream.
	if err := s.control.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	h := c.Response().Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	h.Set("X-Content-Type-Options", "nosniff")
	c.Response().WriteHeader(http.StatusOK)
	s.buf.WriteString("retry: " + strconv.FormatInt(retry.Milliseconds(), 10) + "\n\n")
	return s, s.flush()
}

// add adds an event to the next write. The JSON of data does not contain line ends.
func (s *eventWriter) add(name string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if name != "" {
		s.buf.WriteString("event: " + name + "\n")
	}
	s.buf.WriteString("data: ")
	s.buf.Write(text)
	s.buf.WriteString("\n\n")
	return nil
}

func (s *eventWriter) addPing() { s.buf.WriteString(":\n\n") }

// flush writes the added events. It clears the deadline afterwards: otherwise it would pass while the stream is idle,
// and the end of the response could not be written.
func (s *eventWriter) flush() error {
	if err := s.control.SetWriteDeadline(time.Now().Add(eventsPatience)); err != nil {
		return err
	}
	if _, err := s.to.Write(s.buf.Bytes()); err != nil {
		return err
	}
	if s.buf.Cap() > 1<<20 { // do not keep the memory of a large payload
		s.buf = bytes.Buffer{}
	}
	s.buf.Reset()
	if err := s.control.Flush(); err != nil {
		return err
	}
	return s.control.SetWriteDeadline(time.Time{})
}

func acceptsEvents(r *http.Request) bool {
	return strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Accept"), ",")), "text/event-stream")
}

// slots limits the number of open streams of one kind.
type slots chan struct{}

// enter acquires a slot, or returns an error if all are in use.
func (s slots) enter(what string) error {
	select {
	case s <- struct{}{}:
		return nil
	default:
		return echo.NewHTTPError(http.StatusServiceUnavailable, strconv.Itoa(cap(s))+" "+what+" are already open, which is the limit; close one")
	}
}

func (s slots) leave() { <-s }
