package sse_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

// Even if connections without a request use all slots, new clients receive a response.
func TestInvariant14ConnectionsAreBounded(t *testing.T) {
	bubble(t, config{maxConns: 3}, func(t *testing.T, s *testServer, l *pipeListener) {
		silent := make([]net.Conn, 3)
		for i := range silent {
			silent[i] = l.dial()
			defer silent[i].Close()
		}
		for range 5 {
			got, ended := finished(open(t, l.dial(), request("user=42")))
			if !strings.HasSuffix(plain(got), ":\nretry: MS\nevent: busy\ndata: {\"reason\":\"clients\"}\n\n") || !ended {
				t.Errorf("a browser receives %q, end: %v", got, ended)
			}
			got, _ = finished(open(t, l.dial(), "GET /events?user=42 HTTP/1.1\r\nHost: hub.example\r\n\r\n"))
			if !strings.HasPrefix(got, "HTTP/1.1 503 ") || !strings.Contains(got, "\r\nRetry-After: ") {
				t.Errorf("another client receives %q", got)
			}
		}
		if n := s.handler.Stats().Rejects["clients"]; n != 10 {
			t.Errorf("%d rejections are counted, want 10", n)
		}

		// Connections without a request above the limit delay the others only briefly.
		start := time.Now()
		var dawdlers []*peer
		for range 2 * sse.OverflowConns {
			dawdlers = append(dawdlers, open(t, l.dial(), "GET /events?user=42 HTTP/1.1\r\n"))
		}
		finished(open(t, l.dial(), request("user=42")))
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("the next one waits for %v", d)
		}
		for _, p := range dawdlers {
			if _, ended := finished(p); !ended {
				t.Error("one of the previous connections is still open")
			}
		}

		silent[0].Close()
		synctest.Wait()
		if got, _ := finished(open(t, l.dial(), request("user=42"))); !strings.Contains(got, "\r\n\r\n:\nretry: ") {
			t.Errorf("with a free slot, a browser receives %q", got)
		}
	})
}

// finished returns what a peer in a bubble has received so far.
func finished(p *peer) (text string, ended bool) {
	synctest.Wait()
	return p.text()
}

// The slot of a connection is free after any use of the connection.
func TestSlotIsFreeAfterAnyUse(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		s := serve(t, config{maxConns: 1})
		for _, query := range []string{"user=42", "", "user=42&event=x", "user=42"} {
			b := admitted(t, s, http2, query)
			b.head.Body.Close()
			b.client.CloseIdleConnections()
		}
		conn, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, "this is not a request\r\n\r\n")
		io.Copy(io.Discard, conn)
		conn.Close()
		b := admitted(t, s, http2, "user=42")
		s.hub.Disconnect("42")
		b.want("bye", `{"reason":"kicked"}`)
		b.wantEnd()
	})
}

func TestConfigErrors(t *testing.T) {
	streams := newTestServer(t, config{}).handler
	for name, c := range map[string]sse.ServerConfig{
		"Streams": {Address: "127.0.0.1:0"},
		"Path":    {Address: "127.0.0.1:0", Streams: streams, Path: "events"},
		`"/a%"`:   {Address: "127.0.0.1:0", Streams: streams, Path: "/a%"},
	} {
		if _, err := sse.NewServer(t.Context(), c); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	defer func() {
		if v := recover(); v == nil {
			t.Error("New accepts a Config without Hub")
		}
	}()
	sse.New(sse.Config{})
}

// A client that is still sending when it receives the response then receives a FIN, not a reset, which could
// overtake the response.
func TestResponseToAnUnreadRequestEndsCleanly(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]config{
		"fast path": {fast: true, maxConns: 10}, "net/http": {maxConns: 10}, "portable": {maxConns: 10, sse: sse.Config{Portable: true}},
		"no limit": {fast: true}, "past the limit": {maxConns: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, c)
			if name == "past the limit" {
				dial(t, s, request("user=42")).head()
			}
			conn, err := net.Dial("tcp", s.listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			// More than net/http reads of a head, so that some of it stays in the socket.
			io.WriteString(conn, "GET /events?user=42 HTTP/1.1\r\nHost: hub.example\r\nX: "+strings.Repeat("x", 300<<10))
			response, err := io.ReadAll(conn)
			if !strings.HasPrefix(string(response), "HTTP/1.1 431 ") || err != nil {
				t.Errorf("got %.40q, %v, want 431 and no error", response, err)
			}
			// net/http closes the connection half a second later, on a goroutine that must not outlive the test.
			conn.SetDeadline(time.Now().Add(30 * time.Second))
			for ; err == nil; time.Sleep(10 * time.Millisecond) {
				_, err = conn.Write([]byte("x"))
			}
		})
	}
}

// If fewer than a tenth of the slots are free, HTTP/2 connections are closed after their last
// stream.
func TestConnectionsAreShortNearTheLimit(t *testing.T) {
	s := serve(t, config{maxConns: 10})
	for i := range 10 {
		if s.server.IsShort() {
			t.Errorf("short with %d of 10", i)
		}
		dial(t, s, request("user=42")).head()
	}
	if !s.server.IsShort() {
		t.Error("not short when all slots are used")
	}
}

// With TLS, the server must find the connection inside the tls.Conn: that one has a slot or is above
// the limit.
func TestLimitOverTLS(t *testing.T) {
	s := serve(t, config{maxConns: 1, tls: true})
	visit := func() (isBusy bool, leave func()) {
		client := newClient(t, false, nil)
		client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		r, err := http.NewRequest(http.MethodGet, "https://"+s.listener.Addr().String()+"/events?user=42", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		r.Close = true // no connection stays open
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		e, _, err := eventstream.NewReader(response.Body).Block()
		if err != nil {
			t.Fatal(err)
		}
		return e.Type == "busy", func() { response.Body.Close() }
	}
	for range 3 {
		isBusy, leave := visit()
		for start := time.Now(); isBusy; isBusy, leave = visit() { // the previous one is about to be closed
			if leave(); time.Since(start) > 10*time.Second {
				t.Fatal("the slot of a closed connection is still in use")
			}
		}
		isBusy, alsoLeave := visit()
		if !isBusy {
			t.Error("a stream was opened above the limit")
		}
		alsoLeave()
		leave()
	}
}

type admission struct {
	*browser
	client *http.Client
}

// admitted sends requests until the response is not "busy": the slot of the previous client is free
// only a moment after it has disconnected.
func admitted(t *testing.T, s *testServer, http2 bool, query string) admission {
	t.Helper()
	for {
		client := newClient(t, http2, nil)
		r, err := http.NewRequest(http.MethodGet, s.url(query), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		response, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b := admission{&browser{eventstream.NewReader(response.Body), t, response, nil}, client}
		if e, _, _ := b.Block(); e.Type != "busy" {
			return b
		}
		response.Body.Close()
		client.CloseIdleConnections()
	}
}
