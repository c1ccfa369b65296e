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

// An attacker sends HTTP/2 frames that no browser sends. What it writes is buffered until flush.
type attacker struct {
	net.Conn
	w      *bufio.Writer
	framer *http2.Framer
	block  bytes.Buffer
	hpack  *hpack.Encoder
	next   uint32 // stream ID
}

// attacker opens an HTTP/2 connection with these settings.
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

// request encodes the headers of a request for a stream of the user.
func (a *attacker) request(user string) []byte {
	a.block.Reset()
	for _, f := range [][2]string{
		{":method", "GET"}, {":scheme", "http"}, {":authority", "h"}, {":path", "/events?user=" + user}, {"accept", "text/event-stream"}, {"cookie", "session=" + user},
	} {
		a.hpack.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	return a.block.Bytes()
}

// ask sends a request for a stream of the user, and returns the ID of the HTTP/2 stream.
func (a *attacker) ask(user string) (id uint32, err error) {
	id = a.next
	a.next += 2
	return id, a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.request(user), EndStream: true, EndHeaders: true})
}

// reset opens that many HTTP/2 streams over conns connections, and resets each immediately.
func (s *target) reset(t *testing.T, conns, resets int, user func(n int) string) {
	t.Helper()
	hubtest.Each(t, conns, func(c int) error {
		a, err := s.attacker()
		if err != nil {
			return err
		}
		defer a.Close()
		seen := make(chan struct{}) // closed when the hub has received all, or has closed the connection
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

// Streams that are reset immediately (CVE-2023-44487) do not cause more concurrent authentications
// than a connection is allowed streams, and other streams still receive messages.
func TestAuthenticationOfResetStreamsIsBounded(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps both cores busy")
	}
	// net/http closes a connection after four times as many resets as it allows concurrent streams.
	const conns, resets = 4, 4 * 1500
	server := redistest.Start(t)
	var pending, most atomic.Int64
	flooded := make(chan struct{}) // closed when all resets have been sent
	authenticate := func(r *http.Request) (auth.Identity, error) {
		now := pending.Add(1)
		defer pending.Add(-1)
		for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
		}
		if !strings.Contains(r.URL.RawQuery, "quiet") {
			<-flooded // an app that responds late, and ignores that the client is gone
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
	hubtest.Eventually(t, "all reset streams are cleaned up", func() bool {
		return pending.Load() == 0 && h.Hub().Stats().Clients == 1 && runtime.NumGoroutine() <= goroutines+10 // connections to Redis are made meanwhile
	})
	t.Logf("%d streams: at most %d concurrent authentications", resets, most.Load())
	public, _ := h.Servers()
	if bound := int64(conns * public.HTTP2.MaxConcurrentStreams); most.Load() > bound {
		t.Errorf("%d concurrent authentications for %d connections", most.Load(), conns)
	}
}

// Reset streams, each with a different cookie, do not delay the authentication of other clients.
func TestResetStreamsDoNotDelayAuthenticationOfOthers(t *testing.T) {
	if testing.Short() {
		t.Skip("keeps both cores busy")
	}
	var requests atomic.Int64
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		cookie, _ := r.Cookie("session")
		select {
		case <-time.After(50 * time.Millisecond): // slow: 40 per second
		case <-r.Context().Done():
		}
		w.Header().Set("X-User-ID", cookie.Value)
	}))
	defer app.Close()
	h := hubtest.Start(t, redistest.Start(t), "--auth", "forward", "--forward-url", app.URL, "--auth-concurrency", "2")
	s := &target{public: h.PublicAddr()}
	const resets = 4 * 400 // authenticating all of them would take 40 s
	s.reset(t, 4, resets, func(n int) string { return fmt.Sprint("reset-", n) })
	start := time.Now()
	h.Open(t, "", hubtest.SessionCookie("42"))
	if took := time.Since(start); took > hubtest.Soon {
		t.Errorf("authentication took %v", took)
	}
	t.Logf("after %d resets an authentication took %v; the app received %d requests", resets, time.Since(start).Round(time.Millisecond), requests.Load())
}
