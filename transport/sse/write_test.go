package sse_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
	"usercast/transport/sse/echosse"
)

// patience is the write timeout of these tests.
const patience = 10 * time.Second

var patient = config{sse: sse.Config{WriteTimeout: patience, PingInterval: time.Hour}}

func TestStalledReaderIsSlow(t *testing.T) {
	for name, takes := range map[string]int{"from the start": 0, "after a part": 1000} {
		t.Run(name, func(t *testing.T) {
			bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
				p := ask(t, l.dial(), request("user=42"))
				p.head()
				s.hub.Publish(hub.User("42"), "", strings.Repeat("x", 100_000))
				s.hub.Publish(hub.User("42"), "", "queued")
				p.read(takes)
				start := time.Now()
				time.Sleep(patience * 8 / 10)
				if cause := s.ended(); cause != "" {
					t.Fatalf("ended as %s before the write timeout", cause)
				}
				s.wantEnd(hub.ReasonSlow)
				if took := time.Since(start); took > patience {
					t.Errorf("ended after %v, want %v", took, patience)
				}
				if n := s.hub.Stats().FramesDiscarded[hub.ReasonSlow]; n != 2 {
					t.Errorf("%d frames discarded, want 2", n)
				}
				if rest, err := io.ReadAll(p.conn); len(rest) > 0 || err != nil {
					t.Errorf("%d bytes more, %v", len(rest), err)
				}
			})
		})
	}
}

// The write timeout applies to a stalled reader, not to one on a slow network that accepts a large message
// in small parts.
func TestSlowReaderStaysConnected(t *testing.T) {
	bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
		p := ask(t, l.dial(), request("user=42"))
		p.head()
		large := strings.Repeat("x", 50_000)
		s.hub.Publish(hub.User("42"), "", large)
		s.hub.Publish(hub.User("42"), "", "queued")
		want := "data: " + large + "\nid: BOOT-1\n\ndata: queued\nid: BOOT-2\n\n"
		got := ""
		for size := len(want) + 2*len("ghij"); len(got) < size; { // the real boot id is twice as long as BOOT
			time.Sleep(patience * 9 / 10)
			got += p.read(min(1000, size-len(got)))
			if cause := s.ended(); cause != "" {
				t.Fatalf("ended as %s with %d bytes read", cause, len(got))
			}
		}
		if plain(got) != want {
			t.Errorf("got %.100q…", plain(got))
		}
	})
}

// The same applies over HTTP/2, whose deadline resets a stream even if the peer has accepted a part.
func TestReadersOverHTTP2(t *testing.T) {
	large := strings.Repeat("x", 1<<20) // more than the client's window
	t.Run("slow reader", func(t *testing.T) {
		bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
			b := browse(t, newClient(t, true, l.dial), s.url("user=42"))
			s.hub.Publish(hub.User("42"), "", large)
			s.hub.Publish(hub.User("42"), "", "queued")
			slow := eventstream.NewReader(bufio.NewReaderSize(slowly{b.head.Body, patience / 2}, 64<<10))
			slow.Continue(b.Reader)
			b.Reader = slow
			b.want("message", large)
			b.want("message", "queued")
			if cause := s.ended(); cause != "" {
				t.Errorf("ended as %s", cause)
			}
		})
	})
	t.Run("stalled reader", func(t *testing.T) {
		bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
			b := browse(t, newClient(t, true, l.dial), s.url("user=42"))
			start := time.Now()
			s.hub.Publish(hub.User("42"), "", large)
			s.wantEnd(hub.ReasonSlow)
			if took := time.Since(start); took > patience || took < patience*8/10 {
				t.Errorf("ended after %v, want %v", took, patience)
			}
			if e, err := b.Next(); err == nil || err == io.EOF {
				t.Errorf("got %.100q, %v; want an error: the message was cut off", e, err)
			}
		})
	})
	t.Run("stalled connection", func(t *testing.T) {
		bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
			conn := &haltingConn{Conn: l.dial(), halted: make(chan struct{}), closed: make(chan struct{})}
			b := browse(t, newClient(t, true, func() net.Conn { return conn }), s.url("user=42"))
			close(conn.halted)
			start := time.Now()
			s.hub.Publish(hub.User("42"), "", large)
			s.wantEnd(hub.ReasonSlow)
			// The server's timeout for the connection restarts once, when the kernel (here: the
			// pipe) has accepted a part.
			if took := time.Since(start); took > 2*patience {
				t.Errorf("ended after %v", took)
			}
			b.cancel()
		})
	})
}

// A slowly waits before each read, and reads only a few bytes.
type slowly struct {
	r    io.Reader
	wait time.Duration
}

func (s slowly) Read(b []byte) (int, error) {
	time.Sleep(s.wait)
	return s.r.Read(b[:min(len(b), 8<<10)])
}

// drip reads slowly up to the end. The returned function waits for the end.
func drip(r io.Reader) (wait func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(io.Discard, slowly{r, patience / 3})
	}()
	return func() { <-done }
}

// A haltingConn stops reading when halted is closed.
type haltingConn struct {
	net.Conn
	halted, closed chan struct{}
	once           sync.Once
}

func (c *haltingConn) Read(b []byte) (int, error) {
	select {
	case <-c.halted:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(b)
	}
}

func (c *haltingConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// When a client has ended, its connection closes within the write timeout, even if frames are still
// queued.
func TestInvariant5ConnectionClosesWithinTheWriteTimeout(t *testing.T) {
	// More is queued than the reader accepts in that time.
	fill := func(s *testServer) {
		for range 100 {
			s.hub.Publish(hub.User("42"), "", strings.Repeat("x", 10_000))
		}
	}
	t.Run("HTTP/1.1", func(t *testing.T) {
		bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
			p := ask(t, l.dial(), request("user=42"))
			p.head()
			fill(s)
			defer drip(p.conn)()
			time.Sleep(patience * 5)
			start := time.Now()
			s.hub.Finish(hub.ReasonKicked, 0)
			s.wantEnd(hub.ReasonKicked)
			if took := time.Since(start); took > patience {
				t.Errorf("ended after %v, want %v", took, patience)
			}
		})
	})
	t.Run("HTTP/2", func(t *testing.T) {
		bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
			b := browse(t, newClient(t, true, l.dial), s.url("user=42"))
			fill(s)
			defer drip(b.head.Body)()
			time.Sleep(patience * 5)
			start := time.Now()
			s.hub.Finish(hub.ReasonKicked, 0)
			s.wantEnd(hub.ReasonKicked)
			if took := time.Since(start); took > patience {
				t.Errorf("ended after %v, want %v", took, patience)
			}
		})
	})
}

// An overflow does not wait for the write in progress.
func TestOverflowInterruptsAWrite(t *testing.T) {
	protocols(t, func(t *testing.T, http2 bool) {
		c := patient
		c.hub.QueueFrames = 5
		bubble(t, c, func(t *testing.T, s *testServer, l *pipeListener) {
			b := browse(t, newClient(t, http2, l.dial), s.url("user=42"))
			s.hub.Publish(hub.User("42"), "", strings.Repeat("x", 1<<20)) // blocks the writer
			synctest.Wait()
			start := time.Now()
			for range 6 {
				s.hub.Publish(hub.User("42"), "", "x")
			}
			s.wantEnd(hub.ReasonSlow)
			if took := time.Since(start); took > 0 {
				t.Errorf("ended after %v", took)
			}
			if e, err := b.Next(); err == nil {
				t.Errorf("got %.100q", e)
			}
		})
	})
}

// The queue may overflow while the head is being written, when a writer that could be interrupted does
// not exist yet.
func TestOverflowBeforeTheHeadIsOut(t *testing.T) {
	c := patient
	c.hub.QueueFrames = 5
	bubble(t, c, func(t *testing.T, s *testServer, l *pipeListener) {
		p := ask(t, l.dial(), request("user=42"))
		synctest.Wait()
		for range 6 {
			s.hub.Publish(hub.User("42"), "", "x")
		}
		if n := s.hub.Stats().Disconnects[hub.ReasonSlow]; n != 1 {
			t.Fatalf("%d clients ended", n)
		}
		all, err := io.ReadAll(p.conn)
		if got, want := plain(string(all)), http11Head+":\nretry: MS\nevent: ping\ndata: {}\nid: BOOT-0\n\n"; got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
		s.wantEnd(hub.ReasonSlow)
	})
}

// A peer that never accepts the head is disconnected as well.
func TestStalledReaderOfTheHead(t *testing.T) {
	bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
		p := ask(t, l.dial(), request("user=42"))
		s.hub.Publish(hub.User("42"), "", "x")
		time.Sleep(patience + time.Millisecond)
		if n := s.hub.Stats().Clients; n != 0 {
			t.Errorf("%d clients left", n)
		}
		s.wantEnd(hub.ReasonSlow)
		if all, err := io.ReadAll(p.conn); len(all) > 0 || err != nil {
			t.Errorf("got %q, %v", all, err)
		}
	})
}

// After a write that failed in the middle of a frame, a bye event would become part of that frame,
// and its id would hide the loss.
func TestNothingIsWrittenAfterATruncatedFrame(t *testing.T) {
	bubble(t, patient, func(t *testing.T, s *testServer, l *pipeListener) {
		var cut *cuttingConn
		l.wrap = func(conn net.Conn) net.Conn { cut = &cuttingConn{Conn: conn}; return cut }
		p := open(t, l.dial(), request("user=42"))
		synctest.Wait()
		cut.cuts.Store(true)
		s.hub.Publish(hub.User("42"), "", "x")
		time.Sleep(patience / 2)
		s.hub.Finish(hub.ReasonKicked, 0)
		s.wantEnd(hub.ReasonKicked)
		if n := cut.later.Load(); n > 0 {
			t.Errorf("%d writes after the truncated one", n)
		}
		if text, _ := p.text(); strings.Contains(text, "bye") {
			t.Errorf("got %q", text)
		}
	})
}

// A cuttingConn blocks in the middle of a write, and accepts everything again after the deadline: a
// network that recovers just after the timeout.
type cuttingConn struct {
	net.Conn
	cuts     atomic.Bool
	later    atomic.Int64
	deadline time.Time
	giveUp   time.Time
}

func (c *cuttingConn) SetWriteDeadline(t time.Time) error { c.deadline = t; return nil }

func (c *cuttingConn) Write(b []byte) (int, error) {
	if !c.cuts.Load() {
		return c.Conn.Write(b)
	}
	if c.giveUp.IsZero() {
		c.giveUp = time.Now().Add(patience)
	}
	if !time.Now().Before(c.giveUp) {
		c.later.Add(1)
		return c.Conn.Write(b)
	}
	time.Sleep(time.Until(c.deadline))
	return 0, os.ErrDeadlineExceeded
}

// Frames of a failed write do not count as delivered, even with an echo response, whose Flush does
// not return an error.
func TestFailedFlushIsNotADelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTestServer(t, config{})
		app := echo.New()
		app.Any("/events", echosse.Handler(s.handler))
		w := &brokenWriter{header: make(http.Header)}
		go app.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/events?user=42", nil))
		synctest.Wait()
		w.broken.Store(true)
		s.hub.Publish(hub.User("42"), "", "x")
		<-s.ends
		if n := s.hub.Stats(); n.Deliveries != 0 {
			t.Errorf("%d frames delivered into nothing", n.Deliveries)
		}
	})
}

// A brokenWriter buffers and fails to flush, as in HTTP/2 after the peer has
// disconnected.
type brokenWriter struct {
	header http.Header
	broken atomic.Bool
}

func (w *brokenWriter) Header() http.Header         { return w.header }
func (w *brokenWriter) WriteHeader(int)             {}
func (w *brokenWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w *brokenWriter) Flush()                      { w.FlushError() }
func (w *brokenWriter) FlushError() error {
	if w.broken.Load() {
		return io.ErrClosedPipe
	}
	return nil
}
