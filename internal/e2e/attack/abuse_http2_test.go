//go:build unix

package attack

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"usercast/auth"
	"usercast/internal/app"
	"usercast/internal/hubtest"
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
func (s *target) attacker(settings ...http2.Setting) (*attacker, error) {
	conn, err := s.dial("h2")
	if err != nil {
		return nil, err
	}
	a := &attacker{Conn: conn, w: bufio.NewWriterSize(conn, 32<<10), next: 1}
	a.framer = http2.NewFramer(a.w, conn)
	a.hpack = hpack.NewEncoder(&a.block)
	conn.SetDeadline(time.Now().Add(hubtest.Patience))
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
		{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/events?user=" + user}, {"accept", "text/event-stream"}, {"cookie", "session=" + user},
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

// reset asks for that many streams over some connections, and resets each at once.
func (s *target) reset(t *testing.T, conns, resets int, user func(n int) string) {
	t.Helper()
	hubtest.Each(t, conns, func(c int) error {
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
			if id, err = a.ask(user(c*resets + n)); err == nil {
				err = a.framer.WriteRSTStream(id, http2.ErrCodeCancel)
			}
		}
		a.framer.WritePing(false, [8]byte{})
		a.w.Flush()
		<-seen
		return nil
	})
}

// Streams that are reset at once (CVE-2023-44487) do not make the hub ask about more of
// them at a time than one connection may have, and its other streams go on.
func TestResetStreamsAreAskedAboutAFewAtATime(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps both cores busy")
	}
	// Four times as many as one connection may have at a time is when net/http has seen enough.
	const conns, resets = 4, 4 * 1500
	server := redistest.Start(t)
	var asking, most atomic.Int64
	flooded := make(chan struct{}) // closed when all resets have been sent
	authenticate := func(r *http.Request) (auth.Identity, error) {
		now := asking.Add(1)
		defer asking.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		if !strings.Contains(r.URL.RawQuery, "quiet") {
			<-flooded // an app that answers late, and does not see that nobody waits
		}
		return auth.Insecure(r)
	}
	h := hubtest.Run(t, hubtest.NewWith(t, server.URL(), func(p *app.Parts) { p.Auth.Authenticate = authenticate }))
	h.AwaitSubscription(t, 1)
	app := hubtest.NewPublisher(t, server.Addr())
	quiet := h.Open(t, "user=quiet")
	goroutines := runtime.NumGoroutine()

	s := &target{public: h.PublicAddr()}
	release := sync.OnceFunc(func() { close(flooded) })
	defer release()
	s.reset(t, conns, resets, func(int) string { return "42" })
	app.Publish(t, "user-quiet", "hello")
	start := time.Now()
	quiet.Want(t, "hello")
	if took := time.Since(start); took > tooLate {
		t.Errorf("a message took %v", took)
	}
	release()
	hubtest.Eventually(t, "nothing is left of them", func() bool {
		return asking.Load() == 0 && h.Hub().Stats().Clients == 1 && runtime.NumGoroutine() <= goroutines
	})
	t.Logf("of %d streams it asked about %d at a time", resets, most.Load())
	public, _ := h.Servers()
	if bound := int64(conns * public.HTTP2.MaxConcurrentStreams); most.Load() > bound {
		t.Errorf("asked about %d streams at a time, of %d connections", most.Load(), conns)
	}
}

// Nor do they stand in the way of others who have the app asked, each with another cookie.
func TestResetStreamsDoNotKeepOthersFromTheApp(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps both cores busy")
	}
	var came atomic.Int64
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		came.Add(1)
		cookie, _ := r.Cookie("session")
		select {
		case <-time.After(50 * time.Millisecond): // slow: 40 a second
		case <-r.Context().Done():
		}
		w.Header().Set("X-User-ID", cookie.Value)
	}))
	defer app.Close()
	h := hubtest.Start(t, redistest.Start(t), "--auth", "forward", "--forward-url", app.URL, "--auth-concurrency", "2")
	s := &target{public: h.PublicAddr()}
	const resets = 4 * 400 // asking the app about all of them would take 40 s
	s.reset(t, 4, resets, func(n int) string { return fmt.Sprint("reset-", n) })
	start := time.Now()
	h.Open(t, "", hubtest.SessionCookie("42"))
	if took := time.Since(start); took > hubtest.Soon {
		t.Errorf("a log-in took %v", took)
	}
	t.Logf("after %d resets a log-in took %v; the app was asked %d times", resets, time.Since(start).Round(time.Millisecond), came.Load())
}
