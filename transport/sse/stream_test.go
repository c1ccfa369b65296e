package sse_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

const http11Head = "HTTP/1.1 200 OK\r\n" +
	"Cache-Control: no-cache, no-store, no-transform\r\n" +
	"Connection: close\r\n" +
	"Content-Type: text/event-stream\r\n" +
	"Date: NOW\r\n" +
	"X-Accel-Buffering: no\r\n" +
	"X-Content-Type-Options: nosniff\r\n" +
	"\r\n"

// TestStreamBytes compares all bytes of a stream over HTTP/1.1, which has neither chunks nor a length.
func TestStreamBytes(t *testing.T) {
	bubble(t, config{sse: sse.Config{PingInterval: 10 * time.Second}}, func(t *testing.T, s *testServer, l *pipeListener) {
		s.hub.Publish(hub.User("another"), "", "")
		p := open(t, l.dial(), request("user=42&event=topic"))
		n := 0
		want := func(text string) {
			t.Helper()
			if got := p.since(n); got != text {
				t.Errorf("got  %q\nwant %q", got, text)
			}
			n = p.size()
		}
		want(http11Head + ":\nretry: MS\nevent: ping\ndata: {}\nid: BOOT-1\n\n")
		s.hub.Publish(hub.User("42"), "", "a\nb")
		want("data: a\ndata: b\nid: BOOT-2\n\n")
		s.hub.Publish(hub.User("42"), "news", "{}")
		want("event: news\ndata: {}\nid: BOOT-3\n\n")
		s.hub.Publish(hub.User("*"), "gap", "to all")
		want("data: to all\nid: BOOT-4\n\n")
		s.hub.GapForAll(hub.GapRedisReconnect)
		time.Sleep(time.Second)
		want("event: gap\ndata: {\"reason\":\"redis-reconnect\"}\nid: BOOT-4.BOOT.1\n\n")
		time.Sleep(10 * time.Second)
		want(":\n")
		s.hub.Publish(hub.User("another"), "", "")
		time.Sleep(10 * time.Second)
		want("event: ping\ndata: {}\nid: BOOT-5\n\n")
		time.Sleep(10 * time.Second)
		want(":\n")
		s.hub.Publish(hub.User("42"), "", "last")
		s.hub.Finish(hub.ReasonDrain, 0)
		want("data: last\nid: BOOT-6\n\nretry: MS\nevent: bye\ndata: {\"reason\":\"draining\"}\nid: BOOT-6\n\n")
		if _, eof := p.text(); !eof {
			t.Error("the connection is open")
		}
		s.wantEnd(hub.ReasonDrain)
	})
}

// An HTTP/1.0 client receives the same bytes: the body ends with the connection.
func TestStreamForHTTP10(t *testing.T) {
	s := serve(t, config{})
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := ask(t, conn, "GET /events?user=42 HTTP/1.0\r\n\r\n")
	if got, want := plain(p.head()), http11Head+":\nretry: MS\nevent: ping\ndata: {}\nid: BOOT-0\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.hub.Publish(hub.User("42"), "", "hello")
	s.hub.Finish(hub.ReasonKicked, 0)
	rest, err := io.ReadAll(conn)
	if want := "data: hello\nid: BOOT-1\n\nretry: MS\nevent: bye\ndata: {\"reason\":\"kicked\"}\nid: BOOT-1\n\n"; plain(string(rest)) != want || err != nil {
		t.Errorf("got %q, %v; want %q", rest, err, want)
	}
}

func TestStreamOverEachProtocol(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		s := serve(t, config{})
		b := browse(t, newClient(t, http2, nil), s.url("user=42&topic=a&topic=&event=topic"))
		if got := b.head.ProtoMajor == 2; got != http2 {
			t.Fatalf("spoke %s", b.head.Proto)
		}
		wantStreamHead(t, b.head.StatusCode, b.head.Header)
		if len(b.head.TransferEncoding) > 0 || b.head.ContentLength != -1 {
			t.Errorf("transfer encoding %q, length %d", b.head.TransferEncoding, b.head.ContentLength)
		}
		if !strings.HasSuffix(b.LastID, "-0") || b.Retry == 0 {
			t.Errorf("opening id %q, retry %v", b.LastID, b.Retry)
		}
		s.hub.Publish(hub.User("42"), "b", "filtered")
		s.hub.Publish(hub.User("42"), "a", "one\r\ntwo")
		s.hub.Publish(hub.User("4"), "a", "another's")
		s.hub.Publish(hub.User("42"), "", strings.Repeat("large ", 50_000))
		b.want("a", "one\ntwo")
		b.want("message", strings.Repeat("large ", 50_000))
		if !strings.HasSuffix(b.LastID, "-4") {
			t.Errorf("last id %q", b.LastID)
		}
		s.hub.Finish(hub.ReasonDrain, 0)
		b.want("bye", `{"reason":"draining"}`)
		b.wantEnd()
		s.wantEnd(hub.ReasonDrain)
	})
}

// TLS connections are not detached, because this process encrypts their records.
func TestStreamOverTLS(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		s := newTestServer(t, config{})
		server := httptest.NewUnstartedServer(s.handler)
		server.EnableHTTP2 = http2
		server.StartTLS()
		t.Cleanup(func() {
			s.hub.Finish(hub.ReasonDrain, 0)
			server.Close()
		})
		b := browse(t, server.Client(), server.URL+"/events?user=42")
		if got := b.head.ProtoMajor == 2; got != http2 {
			t.Fatalf("spoke %s", b.head.Proto)
		}
		wantStreamHead(t, b.head.StatusCode, b.head.Header)
		large := strings.Repeat("large ", 50_000)
		s.hub.Publish(hub.User("42"), "", large)
		b.want("message", large)
		s.hub.Finish(hub.ReasonMaxAge, 0)
		b.want("bye", `{"reason":"max_age"}`)
		b.wantEnd()
		s.wantEnd(hub.ReasonMaxAge)

		browse(t, server.Client(), server.URL+"/events?user=42").cancel()
		s.wantEnd(hub.ReasonClosed)
	})
}

func wantStreamHead(t *testing.T, status int, header http.Header) {
	t.Helper()
	if status != http.StatusOK {
		t.Errorf("status %d", status)
	}
	for name, want := range map[string]string{
		"Content-Type":           "text/event-stream",
		"Cache-Control":          "no-cache, no-store, no-transform",
		"X-Accel-Buffering":      "no",
		"X-Content-Type-Options": "nosniff",
	} {
		if got := header.Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// A stream over HTTP/1 is detached: it does not keep net/http, the handler and the middleware in memory. An idle
// hijacked stream needs only one goroutine.
func TestIdleStreamIsOneGoroutine(t *testing.T) {
	bubble(t, config{}, func(t *testing.T, s *testServer, l *pipeListener) {
		const streams = 50
		var peers []*peer
		for range streams {
			p := ask(t, l.dial(), request("user=42"))
			p.head()
			peers = append(peers, p)
		}
		s.hub.Publish(hub.User("42"), "", "hello") // starts writers, which end afterwards
		for _, p := range peers {
			p.read(len("data: hello\nid: abcdefgh-1\n\n"))
		}
		synctest.Wait()
		stacks := make([]byte, 1<<20)
		stacks = stacks[:runtime.Stack(stacks, true)]
		if n := bytes.Count(stacks, []byte("created by usercast/transport/sse.")); n != streams {
			t.Errorf("%d goroutines for %d streams", n, streams)
		}
		if n := bytes.Count(stacks, []byte("ServeHTTP")); n > 0 {
			t.Errorf("%d handlers have not returned", n)
		}
	})
}

// If connections cannot be hijacked, the hub writes through the response writer.
func TestStreamThroughAResponseWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, config{})
		recorder := httptest.NewRecorder()
		go s.handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/events?user=42", nil))
		synctest.Wait()
		s.hub.Publish(hub.User("42"), "", "hello")
		s.hub.Finish(hub.ReasonExpired, 0)
		s.wantEnd(hub.ReasonExpired)
		synctest.Wait()
		wantStreamHead(t, recorder.Code, recorder.Header())
		if got, want := plain(recorder.Body.String()), ":\nretry: MS\nevent: ping\ndata: {}\nid: BOOT-0\n\n"+
			"data: hello\nid: BOOT-1\n\nretry: MS\nevent: bye\ndata: {\"reason\":\"expired\"}\nid: BOOT-1\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Middleware that cannot flush would buffer everything. The stream ends, and the log contains the
// reason.
func TestStreamThroughAWriterThatCannotFlush(t *testing.T) {
	s := newTestServer(t, config{})
	w := struct{ http.ResponseWriter }{httptest.NewRecorder()}
	s.handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/events?user=42", nil))
	if n := s.hub.Stats().Disconnects[hub.ReasonFailed]; n != 1 {
		t.Errorf("%d streams failed", n)
	}
}

// Pages that lost their connections at the same time do not reconnect at the same time.
func TestRetryDiffersBetweenClients(t *testing.T) {
	s := newTestServer(t, config{sse: sse.Config{Retry: 2 * time.Second}})
	seen := make(map[time.Duration]int)
	low, high := time.Hour, time.Duration(0)
	for range 500 {
		_, p := eventstream.Parse(openAndClose(s, "user=42").Body.String())
		seen[p.Retry]++
		low, high = min(low, p.Retry), max(high, p.Retry)
	}
	if low < time.Second || low > 1100*time.Millisecond || high > 3*time.Second || high < 2900*time.Millisecond {
		t.Errorf("from %v to %v, want all between 1 s and 3 s", low, high)
	}
	if len(seen) < 250 {
		t.Errorf("%d different ones among 500", len(seen))
	}
}

// openAndClose returns the response to a browser that disconnects when it has received it.
func openAndClose(s *testServer, query string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/events?"+query, nil)
	r.Host = "hub.example"
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return answer(s, r)
}

func answer(s *testServer, r *http.Request) *httptest.ResponseRecorder {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	w := leavingRecorder{httptest.NewRecorder(), cancel}
	s.handler.ServeHTTP(w, r.WithContext(ctx))
	return w.ResponseRecorder
}

// A leavingRecorder is a client that disconnects after the first flush.
type leavingRecorder struct {
	*httptest.ResponseRecorder
	leave context.CancelFunc
}

func (w leavingRecorder) Flush() {
	w.ResponseRecorder.Flush()
	w.leave()
}

// All queued messages are written at once: a burst of 100 messages must not cause 100
// writes.
func TestBurstGoesOutInOneWrite(t *testing.T) {
	bubble(t, config{}, func(t *testing.T, s *testServer, l *pipeListener) {
		p := ask(t, l.dial(), request("user=42"))
		head := p.head()
		s.hub.Publish(hub.User("42"), "", "the first is being written")
		synctest.Wait()
		before := l.writes.Load()
		for i := range 100 {
			s.hub.Publish(hub.User("42"), "", fmt.Sprint(i))
		}
		go p.readAll()
		synctest.Wait()
		if got := l.writes.Load() - before; got != 1 {
			t.Errorf("%d writes", got)
		}
		_, body, _ := strings.Cut(head, "\r\n\r\n")
		text, _ := p.text()
		events := parseStream(t, body+text)
		if len(events) != 101 || events[100].Data != "99" {
			t.Errorf("%d events, the last is %q", len(events), events[len(events)-1])
		}
	})
}
