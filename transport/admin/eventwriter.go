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
	eventsPatience = 10 * time.Second // how long a write may take before the reader counts as gone
	eventsPing     = 15 * time.Second // a stream is never silent for longer
)

// An eventWriter writes server-sent events to an operator. Only one goroutine may use it.
type eventWriter struct {
	to      http.ResponseWriter
	control *http.ResponseController
	buf     bytes.Buffer // what the next flush writes
}

// openEvents writes the head of a stream, and when to come back after its end.
func openEvents(c echo.Context, retry time.Duration) (*eventWriter, error) {
	s := &eventWriter{to: c.Response(), control: http.NewResponseController(c.Response())}
	// The server's bound on how long a request may take to come in would end the stream.
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

// add puts an event into the next write. JSON has no line ends in it.
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

// flush writes what was added. Between two flushes no deadline is armed: after a quiet time
// it would have passed, and the end of the response could not be written.
func (s *eventWriter) flush() error {
	if err := s.control.SetWriteDeadline(time.Now().Add(eventsPatience)); err != nil {
		return err
	}
	if _, err := s.to.Write(s.buf.Bytes()); err != nil {
		return err
	}
	if s.buf.Cap() > 1<<20 { // one large payload must not be held for hours
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

// slots bounds how many streams of a kind are open.
type slots chan struct{}

// enter takes a slot, or says that there is none.
func (s slots) enter(what string) error {
	select {
	case s <- struct{}{}:
		return nil
	default:
		return echo.NewHTTPError(http.StatusServiceUnavailable, strconv.Itoa(cap(s))+" "+what+" are already open, which is the limit; close one")
	}
}

func (s slots) leave() { <-s }
