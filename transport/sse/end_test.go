package sse_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

// When the hub ends a stream on purpose, it sends bye with the reason after all queued messages.
func TestByeEvent(t *testing.T) {
	for cause, reason := range map[hub.Reason]string{
		hub.ReasonExpired: "expired", hub.ReasonKicked: "kicked", hub.ReasonMaxAge: "max_age", hub.ReasonDrain: "draining",
	} {
		t.Run(reason, func(t *testing.T) {
			bubble(t, config{sse: sse.Config{Retry: 2 * time.Second}}, func(t *testing.T, s *testServer, l *pipeListener) {
				p := ask(t, l.dial(), request("user=42"))
				p.head()
				for i := range 3 { // the first one is being written
					s.hub.Publish(hub.User("42"), "", fmt.Sprint(i))
					synctest.Wait()
				}
				s.hub.Finish(cause, 0)
				s.hub.Publish(hub.User("42"), "", "too late")
				all, err := io.ReadAll(p.conn)
				want := "data: 0\nid: BOOT-1\n\ndata: 1\nid: BOOT-2\n\ndata: 2\nid: BOOT-3\n\n" +
					fmt.Sprintf("retry: MS\nevent: bye\ndata: {\"reason\":%q}\nid: BOOT-3\n\n", reason)
				if plain(string(all)) != want || err != nil {
					t.Errorf("got %q, %v; want %q", plain(string(all)), err, want)
				}
				least, most := time.Second, 3*time.Second // --retry ± 50 %
				if cause == hub.ReasonKicked {            // independent of --retry: the app needs time to destroy the session
					least, most = 5*time.Second, 10*time.Second
				}
				if _, parser := eventstream.Parse(string(all)); parser.Retry < least || parser.Retry > most {
					t.Errorf("a fresh retry of %v, want %v to %v", parser.Retry, least, most)
				}
				s.wantEnd(cause)
			})
		})
	}
}

// The bye event carries the current position, so that the page does not resume from an older one.
func TestByeCarriesTheNewPosition(t *testing.T) {
	bubble(t, config{}, func(t *testing.T, s *testServer, l *pipeListener) {
		p := open(t, l.dial(), request("user=42"))
		n := p.size()
		s.hub.Publish(hub.User("another"), "", "")
		s.hub.Finish(hub.ReasonDrain, 0)
		s.hub.Publish(hub.User("another"), "", "after the end")
		if got, want := p.since(n), "retry: MS\nevent: bye\ndata: {\"reason\":\"draining\"}\nid: BOOT-1\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// The hub does not send bye when a stream ends for another reason.
func TestNoByeForOtherReasons(t *testing.T) {
	for _, cause := range []hub.Reason{hub.ReasonClosed, hub.ReasonDead, hub.ReasonSlow, hub.ReasonFailed} {
		bubble(t, config{}, func(t *testing.T, s *testServer, l *pipeListener) {
			p := open(t, l.dial(), request("user=42"))
			n := p.size()
			s.hub.Finish(cause, 0)
			if got := p.since(n); got != "" {
				t.Errorf("%v: got %q", cause, got)
			}
			s.wantEnd(cause)
		})
	}
}

// A login also ends on time while the head of the response waits for its reader.
func TestLoginEndsWhileTheHeadIsWritten(t *testing.T) {
	const life, writeTimeout = 3 * time.Second, 10 * time.Second
	c := config{}
	c.sse.WriteTimeout = writeTimeout
	c.sse.Authenticate = func(*http.Request) (auth.Identity, error) {
		return auth.Identity{User: "42", Expires: time.Now().Add(life)}, nil
	}
	bubble(t, c, func(t *testing.T, s *testServer, l *pipeListener) {
		p := ask(t, l.dial(), request("user=42"))
		synctest.Wait()
		s.hub.Publish(hub.User("42"), "", "in time")
		time.Sleep(2 * life)
		if n := len(s.hub.ClientsOf(hub.User("42"))); n != 0 {
			t.Errorf("%d clients after the end of the login", n)
		}
		s.hub.Publish(hub.User("42"), "", "too late")
		all, err := io.ReadAll(p.conn)
		_, body, _ := strings.Cut(plain(string(all)), "\r\n\r\n")
		want := ":\nretry: MS\nevent: ping\ndata: {}\nid: BOOT-0\n\ndata: in time\nid: BOOT-1\n\nretry: MS\nevent: bye\ndata: {\"reason\":\"expired\"}\nid: BOOT-1\n\n"
		if body != want || err != nil {
			t.Errorf("got %q, %v; want %q", body, err, want)
		}
		s.wantEnd(hub.ReasonExpired)

		// A stream that fails before its head is written leaves nothing that ends it later.
		ask(t, l.dial(), request("user=42"))
		time.Sleep(2 * writeTimeout)
		s.wantEnd(hub.ReasonExpired)
	})
}

func TestMaxAge(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		const age = time.Minute
		bubble(t, config{sse: sse.Config{MaxAge: age}}, func(t *testing.T, s *testServer, l *pipeListener) {
			const streams = 50
			start := time.Now()
			lives := make(chan time.Duration, streams)
			client := newClient(t, http2, l.dial)
			for range streams {
				b := browse(t, client, s.url("user=42"))
				go func() {
					b.want("bye", `{"reason":"max_age"}`)
					b.wantEnd() // not a reset
					lives <- time.Since(start)
				}()
			}
			low, high := time.Hour, time.Duration(0)
			for range streams {
				life := <-lives
				low, high = min(low, life), max(high, life)
			}
			if low < age*8/10 || high > age*12/10 || high-low < age/5 {
				t.Errorf("they lived from %v to %v, want %v ± 20 %%", low, high, age)
			}
			for range streams {
				s.wantEnd(hub.ReasonMaxAge)
			}
		})
	})
}

// A body that ended with a TCP reset would be an error to a browser.
func TestMaxAgeOverTCP(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		s := serve(t, config{sse: sse.Config{MaxAge: 20 * time.Millisecond}})
		client := newClient(t, http2, nil)
		for range 20 {
			b := browse(t, client, s.url("user=42"))
			b.want("bye", `{"reason":"max_age"}`)
			b.wantEnd()
			s.wantEnd(hub.ReasonMaxAge)
		}
	})
}

// A stream that the browser closes is counted immediately, not at the next ping.
func TestClosedStreamIsCountedImmediately(t *testing.T) {
	dial := func(t *testing.T, s *testServer) net.Conn {
		p := dial(t, s, request("user=42"))
		p.head()
		return p.conn
	}
	leave := map[string]func(*testing.T, *testServer) (leaves func()){
		"FIN": func(t *testing.T, s *testServer) func() {
			conn := dial(t, s)
			return func() { conn.Close() }
		},
		"FIN of a half": func(t *testing.T, s *testServer) func() {
			conn := dial(t, s)
			return func() { conn.(*net.TCPConn).CloseWrite() }
		},
		"FIN of a half, in the middle of a write": func(t *testing.T, s *testServer) func() {
			conn := dial(t, s)
			s.hub.Publish(hub.User("42"), "", strings.Repeat("x", 16<<20))
			return func() { conn.(*net.TCPConn).CloseWrite() }
		},
		"RST": func(t *testing.T, s *testServer) func() {
			conn := dial(t, s)
			conn.(*net.TCPConn).SetLinger(0)
			return func() { conn.Close() }
		},
		"HTTP/1.1 client": func(t *testing.T, s *testServer) func() {
			return browse(t, newClient(t, false, nil), s.url("user=42")).cancel
		},
		"HTTP/2 stream": func(t *testing.T, s *testServer) func() {
			return browse(t, newClient(t, true, nil), s.url("user=42")).cancel
		},
	}
	for name, open := range leave {
		t.Run(name, func(t *testing.T) {
			s := serve(t, config{sse: sse.Config{PingInterval: time.Hour, WriteTimeout: time.Hour}})
			leaves := open(t, s)
			if n := s.hub.Stats().Clients; n != 1 {
				t.Fatalf("%d clients", n)
			}
			leaves()
			s.wantEnd(hub.ReasonClosed)
			if n := s.hub.Stats(); n.Clients != 0 || n.Users != 0 {
				t.Errorf("%d clients of %d users", n.Clients, n.Users)
			}
		})
	}
}

// The end of an HTTP/2 stream does not affect other streams of the connection.
func TestHTTP2StreamsEndAlone(t *testing.T) {
	s := serve(t, config{})
	client := newClient(t, true, nil)
	one, two := browse(t, client, s.url("user=1")), browse(t, client, s.url("user=2"))
	one.cancel()
	s.wantEnd(hub.ReasonClosed)
	s.hub.Publish(hub.User("2"), "", "hello")
	two.want("message", "hello")
}

// A browser sends nothing after its request. The hub ends the stream of a peer that keeps sending,
// because each packet costs a wake-up. It accepts a few bytes.
func TestPeerThatKeepsSending(t *testing.T) {
	s := serve(t, config{})
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := ask(t, conn, request("user=42")+"additional bytes")
	p.head()
	io.WriteString(conn, strings.Repeat("x", 1000))
	s.hub.Publish(hub.User("42"), "", "hello")
	want := "data: hello\nid: BOOT-1\n\n"
	if got := plain(p.read(len(want) + 4)); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for err == nil {
		_, err = io.WriteString(conn, strings.Repeat("x", 1000))
	}
	s.wantEnd(hub.ReasonFailed)
}

func TestInvariant11WaitWaitsForEveryStream(t *testing.T) {
	bubble(t, config{sse: sse.Config{MaxAge: time.Hour}}, func(t *testing.T, s *testServer, l *pipeListener) {
		h1, h2 := newClient(t, false, l.dial), newClient(t, true, l.dial)
		for i := range 20 {
			browse(t, h1, s.url("user=1"))
			b := browse(t, h2, s.url("user=2"))
			if i%2 == 0 {
				b.cancel()
			}
		}
		waited := make(chan struct{})
		s.listener.Close()
		s.hub.Refuse()
		go func() { s.handler.Wait(); close(waited) }()
		synctest.Wait()
		select {
		case <-waited:
			t.Fatal("streams are open")
		default:
		}
		s.hub.Finish(hub.ReasonDrain, 0)
		<-waited
		if n := len(s.ends); n != 40 {
			t.Errorf("%d of 40 streams have ended", n)
		}
		// The bubble checks that no goroutine is left.
	})
}

// A drain waits for the hub's own count of streams. http.Server.Shutdown does not wait for hijacked
// connections.
func TestInvariant10DrainWaitsForTheHubsOwnCount(t *testing.T) {
	const streams, over = 20, 10 * time.Second
	bubble(t, config{}, func(t *testing.T, s *testServer, l *pipeListener) {
		h1 := newClient(t, false, l.dial)
		for range streams {
			browse(t, h1, s.url("user=1"))
		}
		s.hub.Refuse()
		if err := s.server.HTTP().Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := s.hub.Stats().Clients; n != streams || len(s.ends) != 0 {
			t.Fatalf("after Shutdown, %d clients are left and %d streams have ended; want %d, 0", n, len(s.ends), streams)
		}
		start := time.Now()
		s.hub.Finish(hub.ReasonDrain, over)
		if took, n := time.Since(start), s.hub.Stats().Clients; n != 0 || took < over*8/10 {
			t.Errorf("the drain returned after %v with %d clients left", took, n)
		}
		s.handler.Wait()
		if n := len(s.ends); n != streams {
			t.Errorf("%d of %d streams have ended", n, streams)
		}
	})
}

// Browsers that reconnect while the last streams end receive a temporary rejection.
func TestRequestsDuringWait(t *testing.T) {
	for range 50 {
		s := newTestServer(t, config{})
		go s.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/events?user=42", nil))
		for s.hub.Stats().Clients == 0 {
		}
		s.hub.Refuse()
		var coming sync.WaitGroup
		for range 4 {
			coming.Go(func() {
				for range 20 {
					openAndClose(s, "user=42")
				}
			})
		}
		s.hub.Finish(hub.ReasonDrain, 0)
		s.handler.Wait()
		if n := len(s.ends); n != 1 {
			t.Fatalf("Wait returned when %d of 1 streams had ended", n)
		}
		coming.Wait()
	}
}

// The log contains one line per ended stream and no secrets.
func TestLogContainsNoSecret(t *testing.T) {
	var log bytes.Buffer
	h := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry})
	handler := sse.New(sse.Config{Hub: h.Hub, Authenticate: auth.Insecure, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	s := &testServer{t: t, hub: h, handler: handler}
	for _, query := range []string{"user=42&token=secret", "user=*&token=secret", "event=secret", ""} {
		openAndClose(s, query, "Cookie", "usercast=secret", "Authorization", "Bearer secret", "Last-Event-ID", "secret", "Origin", "http://hub.example")
	}
	handler.Wait()
	if text := log.String(); strings.Contains(text, "secret") || strings.Count(text, "stream ended") != 1 || !strings.Contains(text, "user=42") {
		t.Errorf("log:\n%s", text)
	}
}
