package admin_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/transport/admin"
	"usercast/transport/admin/console"
)

// A source provides the console's data in these tests: the number of requests.
type source struct {
	calls atomic.Int64
	tails chan *tail // opened tails; nil disables them
	done  chan struct{}
}

func (s *source) console() admin.Console {
	c := admin.Console{Done: s.done, Groups: true, Stats: func() any { return map[string]int64{"calls": s.calls.Add(1)} }}
	if s.tails != nil {
		c.Tail = func(of hub.Recipient, remote string) admin.Tail {
			t := &tail{of: of, remote: remote, ready: make(chan struct{}, 1), closed: make(chan struct{})}
			s.tails <- t
			return t
		}
	}
	return c
}

// A tail returns messages that a test adds.
type tail struct {
	of       hub.Recipient
	remote   string
	ready    chan struct{}
	messages []admin.Message
	skipped  uint64
	closed   chan struct{}
}

func (t *tail) Ready() <-chan struct{}          { return t.ready }
func (t *tail) Take() ([]admin.Message, uint64) { return t.messages, t.skipped }
func (t *tail) Close()                          { close(t.closed) }
func (t *tail) say(m []admin.Message, skipped uint64) {
	t.messages, t.skipped = m, skipped
	t.ready <- struct{}{}
}

// startConsole serves a console on loopback, with a read timeout as in the program.
func startConsole(t *testing.T, s *source, token string) *httptest.Server {
	t.Helper()
	e := admin.NewEcho()
	admin.MountConsole(e, s.console(), tokens(token, ""))
	server := httptest.NewUnstartedServer(e)
	server.Config.ReadTimeout = 100 * time.Millisecond
	server.Start()
	t.Cleanup(server.Close)
	return server
}

// A reader reads one stream of events.
type reader struct {
	t      *testing.T
	answer *http.Response
	lines  *bufio.Reader
}

func listen(t *testing.T, server *httptest.Server, path string) *reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { answer.Body.Close() })
	return &reader{t, answer, bufio.NewReader(answer.Body)}
}

// next returns the next event as "name data", and skips pings.
func (r *reader) next() (string, error) {
	name := "message"
	for {
		line, err := r.lines.ReadString('\n')
		if err != nil {
			return "", err
		}
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			name = strings.TrimSpace(n)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return name + " " + strings.TrimSpace(data), nil
		}
	}
}

func (r *reader) want(events ...string) {
	r.t.Helper()
	for _, want := range events {
		if got, err := r.next(); err != nil || got != want {
			r.t.Fatalf("got %q, %v, want %q", got, err, want)
		}
	}
}

func (r *reader) wantEnd() {
	r.t.Helper()
	if got, err := r.next(); err != io.EOF {
		r.t.Errorf("got %q, %v, want a clean end", got, err)
	}
}

func TestStatsAreOneObjectOrAStreamOfThem(t *testing.T) {
	s := &source{done: make(chan struct{})}
	server := startConsole(t, s, "")
	answer, err := server.Client().Get(server.URL + "/api/stats")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(answer.Body)
	answer.Body.Close()
	if answer.StatusCode != 200 || string(body) != "{\"calls\":1}\n" || answer.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %q, %v", answer.StatusCode, body, answer.Header)
	}
	began := time.Now()
	r := listen(t, server, "/api/stats")
	for name, want := range map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"} {
		if got := r.answer.Header.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	r.want(`message {"calls":2}`, `message {"calls":3}`) // the second outlives the server's ReadTimeout
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("two snapshots within %v, want one a second", took)
	}
	close(s.done)
	r.wantEnd()
}

// The number of streams is limited, and a closed stream frees its slot.
func TestStreamsOfStatsAreBounded(t *testing.T) {
	s := &source{done: make(chan struct{})}
	server := startConsole(t, s, "")
	var open []*reader
	for i := range 32 {
		r := listen(t, server, "/api/stats")
		r.want(fmt.Sprintf(`message {"calls":%d}`, i+1))
		open = append(open, r)
	}
	full := listen(t, server, "/api/stats")
	body, _ := io.ReadAll(full.answer.Body)
	if full.answer.StatusCode != 503 || !strings.Contains(string(body), "32 streams of /api/stats are already open") {
		t.Errorf("one more is answered with %d %s", full.answer.StatusCode, body)
	}
	if answer, err := server.Client().Get(server.URL + "/api/stats"); err != nil || answer.StatusCode != 200 {
		t.Errorf("a single snapshot: %v, %v", answer, err)
	} else {
		answer.Body.Close()
	}
	open[0].answer.Body.Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if r := listen(t, server, "/api/stats"); r.answer.StatusCode == 200 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed stream keeps its slot")
		}
	}
	close(s.done)
}

func TestTailSendsMessages(t *testing.T) {
	s := &source{done: make(chan struct{}), tails: make(chan *tail, 1)}
	server := startConsole(t, s, "")
	r := listen(t, server, "/api/users/a%2Fb/messages")
	opened := <-s.tails
	if host, _, _ := net.SplitHostPort(opened.remote); opened.of != hub.User("a/b") || host != "127.0.0.1" {
		t.Errorf("opened for %v from %q", opened.of, opened.remote)
	}
	opened.say([]admin.Message{
		{ID: "b-1", Topic: "activity", Data: "one\ntwo\xff</script>"}, {ID: "b-2", Broadcast: true}, {ID: "b-3", Gap: "too-large"},
	}, 7)
	r.want(`message {"id":"b-1","topic":"activity","data":"one\ntwo\ufffd\u003c/script\u003e"}`,
		`message {"id":"b-2","topic":"","data":"","broadcast":true}`, `gap {"id":"b-3","reason":"too-large"}`, `skipped {"messages":7}`)
	opened.say([]admin.Message{{ID: "b-4", Data: strings.Repeat("x", 2<<20)}}, 0)
	if got, err := r.next(); err != nil || len(got) < 2<<20 {
		t.Errorf("a large message: %d bytes, %v", len(got), err)
	}
	r.answer.Body.Close()
	<-opened.closed // the client has disconnected

	r = listen(t, server, "/api/groups/team-7/messages")
	if opened = <-s.tails; opened.of != hub.Group("team-7") {
		t.Errorf("opened for %v", opened.of)
	}
	close(s.done)
	r.wantEnd()
	<-opened.closed
}

func TestTailsAreBounded(t *testing.T) {
	s := &source{done: make(chan struct{}), tails: make(chan *tail, 8)}
	server := startConsole(t, s, "")
	for range 8 {
		listen(t, server, "/api/users/42/messages")
	}
	if r := listen(t, server, "/api/users/42/messages"); r.answer.StatusCode != 503 {
		t.Errorf("the ninth is answered with %d", r.answer.StatusCode)
	}
	close(s.done)
}

func TestDisabledTailNamesTheFlag(t *testing.T) {
	e := mounted("")
	admin.MountConsole(e, admin.Console{}, tokens("", ""))
	answer := ask(e, "GET", "/api/users/42/messages", nil)
	if answer.Code != 404 || !strings.Contains(answer.Body.String(), "--console-tail") {
		t.Errorf("%d %s", answer.Code, answer.Body)
	}
	if answer := ask(e, "GET", "/api/groups/team-7/messages", nil); answer.Code != 404 || !strings.Contains(answer.Body.String(), "--group-prefix") {
		t.Errorf("a group: %d %s", answer.Code, answer.Body)
	}
	if answer := ask(e, "GET", "/api/users/4:2/messages", nil); answer.Code != 400 {
		t.Errorf("an invalid user id: %d", answer.Code)
	}
}

// The page is the same for all clients. If a token is required, a client without one receives the page with
// status 401.
func TestConsolePage(t *testing.T) {
	for _, test := range []struct {
		name, token string
		change      func(*http.Request)
		code        int
		page        bool
	}{
		{"this machine", "", nil, 200, true},
		{"another machine", "", func(r *http.Request) { r.RemoteAddr = "10.0.0.9:40000" }, 403, false},
		{"a link on another site", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 403, false},
		{"no token", token, nil, 401, true},
		{"no token, another machine", token, func(r *http.Request) { r.RemoteAddr, r.Host = "10.0.0.9:40000", "hub.example" }, 401, true},
		{"no token, a link on another site", token, func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }, 401, true},
		{"the token", token, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, 200, true},
		{"a wrong token", token, func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }, 401, false},
	} {
		e := admin.NewEcho()
		admin.MountConsole(e, admin.Console{}, tokens(test.token, apiToken))
		answer := ask(e, "GET", "/", test.change)
		if isPage := bytes.Equal(answer.Body.Bytes(), console.Get().Body); answer.Code != test.code || isPage != test.page {
			t.Errorf("%s: %d, the page: %v; want %d, %v", test.name, answer.Code, isPage, test.code, test.page)
		}
		if got := answer.Header().Get("WWW-Authenticate"); (got == "Bearer") != (test.code == 401) {
			t.Errorf("%s: WWW-Authenticate is %q", test.name, got)
		}
		if test.page && (answer.Header().Get("Content-Security-Policy") != console.Get().Policy ||
			answer.Header().Get("Cache-Control") != "no-store" || answer.Header().Get("X-Content-Type-Options") != "nosniff") {
			t.Errorf("%s: headers %v", test.name, answer.Header())
		}
		if answer := ask(e, "POST", "/", test.change); answer.Code == 200 {
			t.Errorf("%s: a POST is answered", test.name)
		}
	}
}

// For every user id in a path, the response is one JSON object, and the right user is looked up.
func FuzzUserPath(f *testing.F) {
	for _, seed := range []string{"42", "a%2Fb", "%zz", "%FF", "4:2", "..", "a%20b", "*", "%00", "a/b", "?", "ü", "%25%32%46", ";a=b", "+"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, segment string) {
		target := "/api/users/" + segment
		r, err := http.NewRequest("GET", "http://127.0.0.1:8081"+target, nil)
		if err != nil {
			t.Skip("no client sends it")
		}
		r.RemoteAddr = "127.0.0.1:40000"
		var users []string
		e := admin.NewEcho()
		admin.MountAPI(e, admin.API{Streams: func(of hub.Recipient, _ int) ([]admin.Stream, int) {
			users = append(users, of.Name)
			return nil, 0
		}}, tokens("", ""))
		answer := httptest.NewRecorder()
		e.ServeHTTP(answer, r)
		var response struct{ User, Error string }
		if err := json.Unmarshal(answer.Body.Bytes(), &response); err != nil {
			t.Fatalf("%q: %d %q: %v", segment, answer.Code, answer.Body, err)
		}
		if answer.Code != 200 {
			if len(users) > 0 || response.Error == "" || answer.Code/100 != 4 {
				t.Errorf("%q: %d %s, user %q", segment, answer.Code, answer.Body, users)
			}
			return
		}
		// The path as package net/url parses it, which unescapes it once.
		want, ok := strings.CutPrefix(r.URL.Path, "/api/users/")
		if !ok || len(users) != 1 || users[0] != want || response.User != want || want == "" || strings.Contains(want, ":") {
			t.Errorf("%q: looked up %q, responded with %q, want %q", segment, users, response.User, want)
		}
	})
}

// deadlines is a response writer that records its deadlines.
type deadlines struct {
	*httptest.ResponseRecorder
	read    []time.Time
	write   time.Time // of the next write
	unbound int       // writes without a deadline
	written int
}

func (d *deadlines) SetReadDeadline(at time.Time) error { d.read = append(d.read, at); return nil }

func (d *deadlines) SetWriteDeadline(at time.Time) error { d.write = at; return nil }

func (d *deadlines) Write(p []byte) (int, error) {
	if wait := time.Until(d.write); wait <= 0 || wait > 10*time.Second {
		d.unbound++
	}
	d.write = time.Time{}
	d.written++
	return d.ResponseRecorder.Write(p)
}

// Each write to a stream has a deadline. The server's read timeout must not end a stream.
func TestStreamsHaveOnlyWriteDeadlines(t *testing.T) {
	s := &source{done: make(chan struct{})}
	close(s.done) // after the first snapshot
	e := admin.NewEcho()
	admin.MountConsole(e, s.console(), tokens("", ""))
	r := httptest.NewRequest("GET", "http://127.0.0.1:8081/api/stats", nil)
	r.RemoteAddr = "127.0.0.1:40000"
	r.Header.Set("Accept", "text/event-stream")
	d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
	e.ServeHTTP(d, r)
	if d.written < 2 || d.unbound > 0 {
		t.Errorf("%d of %d writes have no deadline within 10 s", d.unbound, d.written)
	}
	if len(d.read) != 1 || !d.read[0].IsZero() {
		t.Errorf("the read deadlines are %v, want one that clears the server's", d.read)
	}
}

// A tail that was idle for longer than the write timeout still ends cleanly when the hub stops, because the
// deadline of the last write was cleared.
func TestIdleTailEndsCleanly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &source{done: make(chan struct{}), tails: make(chan *tail, 1)}
		e := admin.NewEcho()
		admin.MountConsole(e, s.console(), tokens("", ""))
		operator, conn := net.Pipe()
		l := &onceListener{conns: make(chan net.Conn, 1)}
		l.conns <- loopbackConn{conn}
		server := &http.Server{Handler: e}
		served := make(chan struct{})
		go func() { defer close(served); server.Serve(l) }()
		defer func() { server.Close(); <-served }()

		io.WriteString(operator, "GET /api/users/42/messages HTTP/1.1\r\nHost: 127.0.0.1:8081\r\nConnection: close\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(operator), nil)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(12 * time.Second) // longer than the write timeout, and before the first ping
			close(s.done)
		}()
		if body, err := io.ReadAll(response.Body); string(body) != "retry: 3000\n\n" || err != nil {
			t.Errorf("got %q, %v, want a clean end", body, err)
		}
		<-(<-s.tails).closed
	})
}

// A onceListener accepts the connections in conns until it is closed.
type onceListener struct{ conns chan net.Conn }

func (l *onceListener) Accept() (net.Conn, error) {
	conn, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *onceListener) Close() error   { close(l.conns); return nil }
func (l *onceListener) Addr() net.Addr { return &net.TCPAddr{} }

// A loopbackConn appears to come from this host.
type loopbackConn struct{ net.Conn }

func (loopbackConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 40000}
}
