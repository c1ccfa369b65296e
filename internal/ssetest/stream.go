package ssetest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"usercast/internal/eventstream"
)

// Patience is how long a read waits. It is long because it only matters to a test that fails.
const Patience = 30 * time.Second

// A Stream is the response to a request for an event stream. It reads the stream as a browser does, with two
// differences: input that a browser ignores is an error, and invalid UTF-8 is not replaced.
type Stream struct {
	*eventstream.Reader
	Response *http.Response
	Conn     net.Conn // nil if an HTTP client owns the connection

	listensForPings bool // pings are events that Next returns
	opened          bool // the first block was read
}

// Open opens a stream at host:port/events, and reads its opening block. Headers are "Name: value".
func Open(addr, query string, headers ...string) (*Stream, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return OpenOn(conn, query, headers...)
}

// OpenOn is Open on a connection, which the stream owns from then on.
func OpenOn(conn net.Conn, query string, headers ...string) (*Stream, error) {
	s, err := RequestOn(conn, query, headers...)
	if err != nil {
		return nil, err
	}
	if err := s.readOpening(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Request requests a stream as Open does, and reads only the head of the response, with any status.
func Request(addr, query string, headers ...string) (*Stream, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return RequestOn(conn, query, headers...)
}

// RequestOn is Request on a connection, which the stream owns from then on.
func RequestOn(conn net.Conn, query string, headers ...string) (*Stream, error) {
	host := conn.RemoteAddr().String()
	if conn.RemoteAddr().Network() == "unix" {
		host = "localhost"
	}
	request := "GET /events?" + query + " HTTP/1.1\r\nHost: " + host + "\r\nAccept: text/event-stream\r\nCache-Control: no-cache\r\n"
	for _, h := range headers {
		request += h + "\r\n"
	}
	conn.SetDeadline(time.Now().Add(Patience))
	if _, err := io.WriteString(conn, request+"\r\n"); err != nil {
		conn.Close()
		return nil, err
	}
	in := bufio.NewReaderSize(conn, 1024) // many streams are open at once
	response, err := http.ReadResponse(in, nil)
	if err != nil {
		conn.Close()
		return nil, err
	}
	s := &Stream{Response: response, Conn: conn, listensForPings: strings.Contains(query, "ping=event")}
	var body io.Reader = in
	if response.ContentLength >= 0 || len(response.TransferEncoding) > 0 {
		body = response.Body
	}
	s.Source(body)
	return s, nil
}

// Of returns the stream in a response of an HTTP client.
func Of(response *http.Response) *Stream {
	s := &Stream{Response: response, listensForPings: response.Request != nil && response.Request.URL.Query().Get("ping") == "event"}
	s.Source(response.Body)
	return s
}

// Get opens a stream with a transport, and reads its opening block.
func Get(transport http.RoundTripper, url string, headers ...string) (*Stream, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	response, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	s := Of(response)
	if err := s.readOpening(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Source sets the source of the rest of the stream. It keeps the last id and the retry delay.
func (s *Stream) Source(r io.Reader) {
	reader := eventstream.NewReader(r)
	reader.Strict, reader.Raw = true, true
	if s.Reader != nil {
		reader.Continue(s.Reader)
	}
	s.Reader = reader
}

// readOpening reads the first block. It must contain an id and a retry delay, and no event for the page.
func (s *Stream) readOpening() error {
	if s.Response.StatusCode != http.StatusOK {
		return fmt.Errorf("the response to a request for a stream is %s", s.Response.Status)
	}
	if e, dispatched, err := s.Block(); err != nil {
		return err
	} else if dispatched || s.LastID == "" || s.Retry == 0 {
		return fmt.Errorf("a stream begins with %+v, id %q, retry %v", e, s.LastID, s.Retry)
	}
	return nil
}

// Close closes the connection, or the response of an HTTP client. It may be called from any goroutine.
func (s *Stream) Close() {
	if s.Conn != nil {
		s.Conn.Close()
	} else {
		s.Response.Body.Close()
	}
}

// Block reads up to the next blank line, or to a comment between two blocks, and reports whether that is an
// event that the page listens for: a ping is one only with ping=event, and not in the opening block. The error
// is io.EOF at the clean end of the stream.
func (s *Stream) Block() (e eventstream.Event, dispatched bool, err error) {
	e, dispatched, err = s.Reader.Block()
	if e.Type == "ping" {
		dispatched = dispatched && s.listensForPings && s.opened
	}
	s.opened = s.opened || err == nil
	return e, dispatched, err
}

// Next returns the next event. Pings do not prolong the wait.
func (s *Stream) Next() (eventstream.Event, error) {
	if s.Conn != nil {
		s.Conn.SetReadDeadline(time.Now().Add(Patience))
	} else {
		defer time.AfterFunc(Patience, s.Close).Stop()
	}
	for {
		if e, dispatched, err := s.Block(); dispatched || err != nil {
			return e, err
		}
	}
}
