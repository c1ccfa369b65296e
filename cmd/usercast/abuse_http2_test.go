//go:build unix

package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"usercast/auth"
	"usercast/internal/redistest"
)

// An attacker speaks HTTP/2 as no browser does. What it writes is buffered until flush.
type attacker struct {
	net.Conn
	w      *bufio.Writer
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	next   uint32 // stream
}

// attacker connects, and says hello with these settings.
func (s *siege) attacker(settings ...http2.Setting) (*attacker, error) {
	conn, err := s.dial("h2")
	if err != nil {
		return nil, err
	}
	a := &attacker{Conn: conn, w: bufio.NewWriterSize(conn, 32<<10), next: 1}
	a.framer = http2.NewFramer(a.w, conn)
	a.hpack = hpack.NewEncoder(&a.block)
	conn.SetDeadline(time.Now().Add(patience))
	io.WriteString(a.w, http2.ClientPreface)
	if err := a.framer.WriteSettings(settings...); err != nil {
		return nil, err
	}
	return a, nil
}

// request is a block of headers that asks for a stream.
func (a *attacker) request(user string) []byte {
	a.block.Reset()
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/events?user=" + user}, {"accept", "text/event-stream"},
	} {
		a.hpack.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return a.block.Bytes()
}

// ask asks for a stream, and returns its number.
func (a *attacker) ask(user string) (id uint32, err error) {
	id = a.next
	a.next += 2
	return id, a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.request(user), EndStream: true, EndHeaders: true})
}

func TestHubUnderHTTP2Attack(t *testing.T) {
	for name, secure := range map[string]bool{"in clear": false, "over TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := besiege(t, secure, "--write-timeout", "2s")
			for _, attack := range []struct {
				name string
				how  func(*testing.T)
			}{
				{"rapid reset", s.rapidReset},
				{"headers without an end", s.flood(func(a *attacker) error {
					id := a.next
					a.next += 2
					err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.request("42")})
					a.block.Reset()
					a.hpack.WriteField(hpack.HeaderField{Name: "x-a", Value: strings.Repeat("b", 4000), Sensitive: true})
					for range 1000 {
						if err == nil {
							err = a.framer.WriteContinuation(id, false, a.block.Bytes())
						}
					}
					return err
				})},
				{"empty continuations", s.flood(func(a *attacker) error {
					id := a.next
					a.next += 2
					err := a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.request("42")})
					for range 100_000 {
						if err == nil {
							err = a.framer.WriteContinuation(id, false, nil)
						}
					}
					return err
				})},
				{"settings", s.flood(func(a *attacker) error {
					return a.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 16})
				})},
				{"pings", s.flood(func(a *attacker) error { return a.framer.WritePing(false, [8]byte{}) })},
				{"resets of streams that never were asked for", s.flood(func(a *attacker) error {
					return a.framer.WriteRSTStream(a.next, http2.ErrCodeCancel)
				})},
				{"streams without a window", s.noWindow},
			} {
				t.Run(attack.name, func(t *testing.T) { s.attack(t, attack.how) })
			}
		})
	}
}

// rapidReset is CVE-2023-44487: each stream is cancelled at once, so that the client has
// none open, and the hub may have many to work on.
func (s *siege) rapidReset(t *testing.T) {
	const conns, resets = 8, 20_000
	var (
		answered atomic.Int64
		start    = time.Now()
		reasons  sync.Map
	)
	each(t, conns, func(c int) error {
		batch := resets // as fast as can be written
		if c%2 == 0 {
			batch = 100 // never so many that the hub has enough of it
		}
		for left := resets / conns; left > 0; {
			a, err := s.attacker()
			if err != nil {
				return err
			}
			// One that stays: the hub ends a connection that has no stream left.
			_, err = a.ask(fmt.Sprintf("%d-stays", c))
			for err == nil && left > 0 {
				for n := min(batch, left); err == nil && n > 0; n-- {
					var id uint32
					if id, err = a.ask(fmt.Sprintf("%d-%d", c, left)); err == nil {
						err = a.framer.WriteRSTStream(id, http2.ErrCodeCancel)
					}
					left--
				}
				if err == nil {
					a.framer.WritePing(false, [8]byte{})
					err = a.w.Flush()
				}
				for ping := false; err == nil && !ping; {
					var f http2.Frame
					if f, err = a.framer.ReadFrame(); err == nil {
						switch f := f.(type) {
						case *http2.HeadersFrame:
							answered.Add(1)
						case *http2.PingFrame:
							ping = f.IsAck()
						case *http2.GoAwayFrame:
							reasons.Store(f.ErrCode, true)
							err = errors.New("go away")
						}
					}
				}
			}
			if err != nil && batch == 100 {
				t.Errorf("a client that resets %d streams at a time is cut off: %v", batch, err)
			}
			a.Close()
		}
		return nil
	})
	t.Logf("%d resets in %v; the hub began %d answers", resets, time.Since(start).Round(time.Millisecond), answered.Load())
	reasons.Range(func(why, _ any) bool {
		t.Log("connections were cut off with", why)
		return true
	})
}

// flood repeats frames on some connections for some seconds, or until the hub has had
// enough, and reads nothing of what it answers.
func (s *siege) flood(frames func(*attacker) error) func(t *testing.T) {
	return func(t *testing.T) {
		var written, cut atomic.Int64
		atOnce(4, 3*time.Second, func(int, int) {
			a, err := s.attacker()
			if err != nil {
				t.Error(err)
				return
			}
			defer a.Close()
			a.SetDeadline(time.Now().Add(3 * time.Second))
			for err == nil {
				err = frames(a)
				written.Add(1)
			}
			cut.Add(1)
		})
		t.Logf("%d times on %d connections", written.Load(), cut.Load())
	}
}

// noWindow opens streams that may not send a byte.
func (s *siege) noWindow(t *testing.T) {
	const conns, streams = 4, 100
	ended := func() float64 {
		return scrape(t, "http://"+s.private+"/metrics").with("usercast_disconnects_total", "slow")
	}
	before := ended()
	for c := range conns {
		a, err := s.attacker(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		go io.Copy(io.Discard, a)
		for i := range streams {
			if _, err := a.ask(fmt.Sprintf("%d-%d", c, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.w.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	within(t, 2*time.Second+soon, "all of them are ended", func() bool { return ended() == before+conns*streams })
	t.Logf("ended after %v, the write timeout is 2s", time.Since(start).Round(10*time.Millisecond))
}

// Streams that are reset at once (CVE-2023-44487) do not make the hub ask about more of
// them at a time than one connection may have, and its other streams go on.
func TestResetStreamsAreAskedAboutAFewAtATime(t *testing.T) {
	const conns, resets = 4, 20_000
	server := redistest.Start(t)
	var asking, most, asked atomic.Int64
	h := runHub(t, newHubAsking(t, server.URL(), func(r *http.Request) (auth.Identity, error) {
		now := asking.Add(1)
		defer asking.Add(-1)
		asked.Add(1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		if !strings.Contains(r.URL.RawQuery, "quiet") {
			time.Sleep(20 * time.Millisecond) // an app that answers, and does not see that nobody waits
		}
		return auth.Insecure(r)
	}))
	h.waitUntilSubscribed(t, 1)
	app := newPublisher(t, server.Addr())
	quiet := h.openPage(t, "user=quiet")
	goroutines := runtime.NumGoroutine()

	s := &siege{public: h.PublicAddr()}
	each(t, conns, func(c int) error {
		a, err := s.attacker()
		if err != nil {
			return err
		}
		defer a.Close()
		seen := make(chan struct{}) // closed when the hub has seen all, or has seen enough
		go func() {
			defer close(seen)
			for {
				if f, err := a.framer.ReadFrame(); err != nil || f.Header().Type == http2.FramePing {
					return
				}
			}
		}()
		_, err = a.ask(fmt.Sprint(c, "-stays"))
		for n := 0; err == nil && n < resets/conns; n++ {
			var id uint32
			if id, err = a.ask("42"); err == nil {
				err = a.framer.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}
		a.framer.WritePing(false, [8]byte{})
		a.w.Flush()
		<-seen
		return nil
	})
	app.publish(t, "user-quiet", "hello")
	start := time.Now()
	quiet.want(t, "hello")
	if took := time.Since(start); took > tooLate {
		t.Errorf("a message took %v", took)
	}
	eventually(t, "nothing is left of them", func() bool {
		return asking.Load() == 0 && h.hub.Stats().Clients == 1 && runtime.NumGoroutine() <= goroutines
	})
	t.Logf("of %d streams it asked about %d, about %d at a time", resets, asked.Load(), most.Load())
	if bound := int64(conns * h.App.public.HTTP2.MaxConcurrentStreams); most.Load() > bound {
		t.Errorf("asked about %d streams at a time, of %d connections", most.Load(), conns)
	}
}
