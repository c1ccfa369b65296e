package sse_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// eachHTTP1Transport runs a test with each way in which a stream over HTTP/1.1 is accepted and written to. They
// look the same to a page, and none of them leaks a file descriptor. Each test server also checks that the counters
// add up and that no goroutine is left.
func eachHTTP1Transport(t *testing.T, c config, test func(t *testing.T, s *testServer)) {
	listen(t, 4096, time.Second).Close() // the runtime opens some file descriptors once
	for _, way := range []struct {
		name           string
		portable, fast bool
	}{
		{name: "fast path", fast: true},
		{name: "net/http parked"},
		{name: "portable", portable: true},
	} {
		if testing.Short() && c.takesTime && !way.fast {
			continue
		}
		before := descriptors()
		t.Run(way.name, func(t *testing.T) {
			c := c
			c.sse.Portable, c.fast = way.portable, way.fast
			if c.sendBuffer > 0 {
				c.listener = listen(t, c.sendBuffer, 10*time.Second)
			}
			test(t, serve(t, c))
		})
		for start := time.Now(); descriptors() > before; time.Sleep(time.Millisecond) {
			if time.Since(start) > 10*time.Second {
				t.Fatalf("%s: %d descriptors are left", way.name, descriptors()-before)
			}
		}
	}
}

// descriptors returns the number of open file descriptors of this process, or 0 if it is unknown.
func descriptors() int {
	list, _ := os.ReadDir("/proc/self/fd")
	return len(list)
}

// TestStreamBytesOverTCP compares all bytes of a stream.
func TestStreamBytesOverTCP(t *testing.T) {
	eachHTTP1Transport(t, config{}, func(t *testing.T, s *testServer) {
		s.hub.Publish(hub.User("another"), "", "")
		p := dial(t, s, request("user=42&event=topic"))
		want := http11Head + ":\nretry: MS\nevent: ping\ndata: {}\nid: BOOT-1\n\n"
		if got := plain(p.head()); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		s.hub.Publish(hub.User("42"), "", "a\nb")
		s.hub.Publish(hub.User("42"), "news", "{}")
		s.hub.Publish(hub.User("43"), "", "another's")
		s.hub.Publish(hub.User("*"), "gap", "to all")
		s.hub.GapForAll(hub.GapRedisReconnect)
		s.hub.Publish(hub.User("42"), "", "last")
		s.hub.Disconnect("42")
		s.hub.Publish(hub.User("42"), "", "too late")
		rest, err := io.ReadAll(p.conn)
		want = "data: a\ndata: b\nid: BOOT-2\n\nevent: news\ndata: {}\nid: BOOT-3\n\ndata: to all\nid: BOOT-5\n\n" +
			"event: gap\ndata: {\"reason\":\"redis-reconnect\"}\nid: BOOT-5.BOOT.1\n\ndata: last\nid: BOOT-6\n\n" +
			"retry: MS\nevent: bye\ndata: {\"reason\":\"kicked\"}\nid: BOOT-6\n\n"
		if got := plain(string(rest)); got != want || err != nil {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
		s.wantEnd(hub.ReasonKicked)
	})
}

// The hub sends bye with each of its reasons, and the stream ends cleanly.
func TestByeOverTCP(t *testing.T) {
	for cause, reason := range map[hub.Reason]string{
		hub.ReasonExpired: "expired", hub.ReasonKicked: "kicked", hub.ReasonMaxAge: "max_age", hub.ReasonDrain: "draining",
	} {
		eachHTTP1Transport(t, config{}, func(t *testing.T, s *testServer) {
			b := browse(t, newClient(t, false, nil), s.url("user=42"))
			s.hub.Finish(cause, 0)
			b.want("bye", `{"reason":"`+reason+`"}`)
			b.wantEnd()
			s.wantEnd(cause)
		})
	}
}

// The messages of a corked feed are written at once. A stream can end meanwhile.
func TestCorkedStreams(t *testing.T) {
	eachHTTP1Transport(t, config{}, func(t *testing.T, s *testServer) {
		busy, kicked := dial(t, s, request("user=42")), dial(t, s, request("user=43"))
		busy.head()
		kicked.head()
		left := dial(t, s, request("user=44"))
		left.head()
		s.handler.Cork()
		s.handler.Cork() // of another feed, which is slow
		want := ""
		for i := range 100 {
			s.hub.Publish(hub.User("42"), "", fmt.Sprint(i))
			want += fmt.Sprintf("data: %d\nid: BOOT-%d\n\n", i, i+1)
		}
		s.hub.Publish(hub.User("44"), "", "not read")
		left.conn.Close()
		s.hub.Disconnect("43")
		s.handler.Uncork()
		if got := plain(busy.read(len(want) + 100*len("fghi"))); got != want { // the real boot id is longer than BOOT
			t.Errorf("got %q", got)
		}
		if rest, err := io.ReadAll(kicked.conn); err != nil || !strings.Contains(string(rest), "kicked") {
			t.Errorf("got %q, %v", rest, err)
		}
		s.handler.Uncork()
		ends := []string{<-s.ends, <-s.ends}
		if fmt.Sprint(ends) != "[kicked closed]" && fmt.Sprint(ends) != "[closed kicked]" {
			t.Errorf("they ended as %q", ends)
		}
	})
}

// Even with the shortest interval that the wheel supports, pings are not late by much, and an idle stream
// does not miss any.
func TestPingsOverTCP(t *testing.T) {
	const interval = 10 * time.Millisecond
	eachHTTP1Transport(t, config{sse: sse.Config{PingInterval: interval}}, func(t *testing.T, s *testServer) {
		p := dial(t, s, request("user=42"))
		p.head()
		const pings = 20
		start := time.Now()
		if got := p.read(pings * len(":\n")); got != strings.Repeat(":\n", pings) {
			t.Errorf("got %q", got)
		}
		// On average, because single pings can be late on a busy machine.
		if took := time.Since(start); took < pings*interval*8/10 || took > 3*pings*interval {
			t.Errorf("%d pings in %v", pings, took)
		}
	})
}

// A stalled reader counts as slow after the write timeout. It has received the first part of the
// messages.
func TestStalledReaderOverTCP(t *testing.T) {
	const timeout = 500 * time.Millisecond
	c := config{sendBuffer: 4096, takesTime: true}
	c.sse.WriteTimeout, c.sse.PingInterval = timeout, time.Hour
	eachHTTP1Transport(t, c, func(t *testing.T, s *testServer) {
		p := dial(t, s, request("user=42"))
		p.conn.(*net.TCPConn).SetReadBuffer(4096)
		p.head()
		s.hub.Publish(hub.User("42"), "", "taken")
		p.read(len("data: taken\nid: abcdefgh-1\n\n"))
		start := time.Now()
		s.hub.Publish(hub.User("42"), "", strings.Repeat("x", 1<<20))
		s.hub.Publish(hub.User("42"), "", "queued")
		s.wantEnd(hub.ReasonSlow)
		if took := time.Since(start); took < timeout*8/10 || took > 3*timeout {
			t.Errorf("ended after %v", took)
		}
		if n := s.hub.Stats(); n.Deliveries != 1 || n.FramesDiscarded[hub.ReasonSlow] != 2 {
			t.Errorf("%d delivered, %d discarded", n.Deliveries, n.FramesDiscarded[hub.ReasonSlow])
		}
		if rest, _ := io.ReadAll(p.conn); strings.Contains(string(rest), "queued") || !strings.HasPrefix(string(rest), "data: xxx") {
			t.Errorf("got %.100q…", rest)
		}
	})
}

// A reader that accepts a large message slowly stays connected, and does not delay others.
func TestInvariant1SlowReaderDelaysNoOtherStream(t *testing.T) {
	const timeout = 300 * time.Millisecond
	c := config{takesTime: true}
	c.sse.WriteTimeout, c.sse.PingInterval = timeout, time.Hour
	eachHTTP1Transport(t, c, func(t *testing.T, s *testServer) {
		p, other := dial(t, s, request("user=42")), dial(t, s, request("user=7"))
		p.head()
		other.head()
		const large, bit = 8 << 20, 512 << 10 // large exceeds the buffers of the kernel
		s.hub.Publish(hub.User("42"), "", strings.Repeat("x", large))
		s.hub.Publish(hub.User("42"), "", "queued")
		s.hub.Publish(hub.User("7"), "", "hello")
		if want, got := "data: hello\nid: BOOT-3\n\n", plain(other.read(len("data: hello\nid: abcdefgh-3\n\n"))); got != want {
			t.Errorf("the other stream received %q", got)
		}
		const before, behind = len("data: "), len("\nid: abcdefgh-1\n\ndata: queued\nid: abcdefgh-2\n\n")
		start := plain(p.read(before))
		for taken := 0; taken < large; taken += bit {
			time.Sleep(timeout / 6)
			if got := p.read(bit); strings.Trim(got, "x") != "" || len(got) < bit {
				t.Fatalf("got %.100q… after %d bytes; ended as %q", got, taken, s.ended())
			}
		}
		if got, want := start+plain(p.read(behind)), "data: \nid: BOOT-1\n\ndata: queued\nid: BOOT-2\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// A request is answered even if it arrives in parts, is followed by others, or has an unusual
// form.
func TestRequestsOverTCP(t *testing.T) {
	whole := request("user=42")
	for name, pieces := range map[string][]string{
		"in two":        {whole[:30], whole[30:]},
		"in the end":    {whole[:len(whole)-1], whole[len(whole)-1:]},
		"with more":     {whole + whole},
		"absolute":      {strings.Replace(whole, "/events", "http://hub.example/events", 1)},
		"escaped":       {strings.Replace(whole, "/events", "/%65vents", 1)},
		"without CR":    {strings.ReplaceAll(whole, "\r\n", "\n")},
		"with a length": {strings.Replace(whole, "\r\n", "\r\nContent-Length: 0\r\n", 1)},
		"folded":        {strings.Replace(whole, "\r\n", "\r\nX: a\r\n b\r\n", 1)},
		"long":          {strings.Replace(whole, "\r\n", "\r\nCookie: "+strings.Repeat("x", 40_000)+"\r\n", 1)},
	} {
		t.Run(name, func(t *testing.T) {
			eachHTTP1Transport(t, config{}, func(t *testing.T, s *testServer) {
				p := dial(t, s, pieces[0])
				for _, piece := range pieces[1:] {
					time.Sleep(5 * time.Millisecond) // sends a separate packet
					io.WriteString(p.conn, piece)
				}
				if got, want := plain(p.head()), http11Head+":\nretry: MS\nevent: ping\ndata: {}\nid: BOOT-0\n\n"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}

// Many clients connect, disconnect, are kicked and receive messages at the same time. The counters add up, and
// clients that stay connected receive all messages.
func TestManyConcurrentStreams(t *testing.T) {
	c := config{hub: hub.Config{FanOut: 16, HistoryPerUser: 10, HistoryAge: time.Minute, HistoryBytes: 1 << 20}}
	c.sse.PingInterval, c.sse.MaxAge, c.maxConns = 20*time.Millisecond, 500*time.Millisecond, 1000
	eachHTTP1Transport(t, c, func(t *testing.T, s *testServer) {
		go func() {
			for range s.ends {
			}
		}()
		defer func() {
			s.hub.Refuse()
			s.hub.Finish(hub.ReasonDrain, 0)
			s.handler.Wait()
			close(s.ends)
		}()
		const guests, visits = 8, 60
		done := make(chan struct{})
		var publishing, visiting sync.WaitGroup
		for i := range 2 {
			publishing.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-done:
						return
					default:
					}
					s.handler.Cork()
					for user := range guests {
						s.hub.Publish(hub.User(fmt.Sprint(user)), "", fmt.Sprint(n))
					}
					if s.hub.Publish(hub.User("*"), "", "to all"); n%50 == i {
						s.hub.Disconnect(fmt.Sprint(n % guests))
					}
					s.handler.Uncork()
					time.Sleep(200 * time.Microsecond)
				}
			})
		}
		for user := range guests {
			visiting.Go(func() {
				for visit := range visits {
					conn, err := net.Dial("tcp", s.listener.Addr().String())
					if err != nil {
						t.Error(err)
						return
					}
					if visit%10 != 9 {
						io.WriteString(conn, request(fmt.Sprint("user=", user), "Last-Event-ID: unknown"))
					}
					conn.SetReadDeadline(time.Now().Add(time.Duration(visit%5) * 2 * time.Millisecond))
					if all, err := io.ReadAll(conn); err == nil && !strings.Contains(string(all), "event: bye") {
						t.Errorf("ended with %q", all)
					}
					if visit%3 == 0 {
						conn.(*net.TCPConn).SetLinger(0)
					}
					conn.Close()
				}
			})
		}
		visiting.Wait()
		close(done)
		publishing.Wait()
	})
}

// A browser may disconnect before it receives the response. With a replay, another write follows the
// failed write of the head.
func TestBrowserThatLeavesBeforeItsHead(t *testing.T) {
	for name, leave := range map[string]func(*net.TCPConn){
		"FIN":           func(conn *net.TCPConn) { conn.Close() },
		"FIN of a half": func(conn *net.TCPConn) { conn.CloseWrite() },
		"RST":           func(conn *net.TCPConn) { conn.SetLinger(0); conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			called, left := make(chan bool), make(chan bool)
			c := config{}
			c.sse.PingInterval, c.sse.WriteTimeout = time.Hour, time.Hour
			c.sse.Authenticate = func(r *http.Request) (auth.Identity, error) {
				called <- true
				<-left
				return auth.Insecure(r)
			}
			eachHTTP1Transport(t, c, func(t *testing.T, s *testServer) {
				p := dial(t, s, request("user=42", "Last-Event-ID: unknown"))
				<-called
				leave(p.conn.(*net.TCPConn))
				left <- true
				s.wantEnd(hub.ReasonClosed)
			})
		})
	}
}

// HTTP/2 streams use the same writers as all others. The messages of a corked feed, and a broadcast that
// takes several rounds, arrive on both kinds in the same order.
func TestInvariant2OneOrderOnAllTransports(t *testing.T) {
	eachHTTP1Transport(t, config{hub: hub.Config{FanOut: 4}}, func(t *testing.T, s *testServer) {
		one, two := newClient(t, false, nil), newClient(t, true, nil) // HTTP/2 streams share a connection
		open := func(user string, n int) (browsers []*browser) {
			for range n {
				browsers = append(browsers, browse(t, one, s.url("user="+user)), browse(t, two, s.url("user="+user)))
			}
			return browsers
		}
		stay, kicked, left := open("42", 10), open("43", 1), open("44", 1)
		s.handler.Cork()
		const messages = 100
		for i := range messages {
			s.hub.Publish(hub.User([]string{"42", "*"}[i%2]), "", fmt.Sprint(i))
		}
		for _, b := range left {
			b.cancel()
		}
		s.hub.Disconnect("43")
		s.handler.Uncork()
		for _, b := range stay {
			for i := range messages {
				b.want("message", fmt.Sprint(i))
			}
		}
		for _, b := range kicked {
			for i := 1; i < messages; i += 2 {
				b.want("message", fmt.Sprint(i))
			}
			b.want("bye", `{"reason":"kicked"}`)
			b.wantEnd()
		}
		ends := []string{<-s.ends, <-s.ends, <-s.ends, <-s.ends}
		if slices.Sort(ends); fmt.Sprint(ends) != "[closed closed kicked kicked]" {
			t.Errorf("they ended as %q", ends)
		}
		s.hub.Publish(hub.User("*"), "", "last")
		for _, b := range stay {
			b.want("message", "last")
		}
	})
}
