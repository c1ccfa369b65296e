package sse_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// A peer that sends a FIN with its request has disconnected, as with net/http. The kernel reports
// both in one event.
func TestFastPathNoticesAFINWithTheRequest(t *testing.T) {
	c := config{fast: true, listener: listen(t, 128<<10, time.Hour)}
	c.sse.PingInterval, c.sse.WriteTimeout = time.Hour, time.Hour
	conn, err := net.Dial("tcp", c.listener.Addr().String()) // before the listener accepts
	if err != nil {
		t.Fatal(err)
	}
	ask(t, conn, request("user=42"))
	conn.(*net.TCPConn).CloseWrite()
	serve(t, c).wantEnd(hub.ReasonClosed)
}

// fastListener returns the listener that net/http would use.
func fastListener(t *testing.T, c config, l net.Listener) (*testServer, net.Listener) {
	t.Helper()
	s := newTestServer(t, c)
	server, err := sse.NewServerOn(l, sse.ServerConfig{Streams: s.handler, Handler: s.handler, MaxConns: c.maxConns})
	if err != nil {
		t.Fatal(err)
	}
	return s, server.Listener()
}

// A connection that is accepted while the listener is being closed is closed as well, with or without
// a request.
func TestClosedListenerKeepsNoConnection(t *testing.T) {
	for range 30 {
		l := listen(t, 128<<10, time.Second)
		s, listener := fastListener(t, config{maxConns: 100}, l)
		var conns []net.Conn
		closed := make(chan error)
		for i := range 20 {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				break
			}
			defer conn.Close()
			if conns = append(conns, conn); i == 3 {
				go func() { closed <- listener.Close() }()
			}
		}
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		for i, conn := range conns {
			if fd, ok := otherEnd(t, conn); ok {
				t.Fatalf("connection %d is kept as descriptor %d", i, fd)
			}
		}
		s.handler.Wait()
	}
}

// Connections that do not send a request are closed after requestTime. Those that have sent one are not.
func TestFastPathClosesConnectionsWithoutARequest(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes 12 s")
	}
	s := serve(t, config{fast: true})
	p := dial(t, s, request("user=42"))
	p.head()
	silent, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	silent.SetReadDeadline(time.Now().Add(30 * time.Second))
	start := time.Now()
	if _, err := silent.Read(make([]byte, 1)); err != io.EOF || time.Since(start) < 9*time.Second {
		t.Errorf("after %v: %v", time.Since(start), err)
	}
	s.hub.Disconnect("42")
	if rest, err := io.ReadAll(p.conn); err != nil || !strings.Contains(string(rest), "kicked") {
		t.Errorf("got %q, %v", rest, err)
	}
}

// Closing a server does not wait for a slow authenticator.
func TestClosedListenerDoesNotWaitForTheAuthenticator(t *testing.T) {
	called, patience := make(chan bool), make(chan bool)
	defer close(patience)
	c := config{}
	c.sse.Authenticate = func(r *http.Request) (auth.Identity, error) {
		called <- true
		select {
		case <-r.Context().Done():
			return auth.Identity{}, r.Context().Err()
		case <-patience:
			return auth.Identity{}, errors.New("the app does not respond")
		}
	}
	_, listener := fastListener(t, c, listen(t, 128<<10, time.Second))
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	p := ask(t, conn, request("user=42"))
	<-called
	closed := make(chan error)
	go func() { closed <- listener.Close() }()
	select {
	case err = <-closed:
	case <-time.After(10 * time.Second):
		patience <- true
		err = fmt.Errorf("it waits for the authenticator; then %v", <-closed)
	}
	if err != nil {
		t.Error(err)
	}
	if all, err := io.ReadAll(p.conn); err != nil || !strings.Contains(string(all), "auth-unavailable") {
		t.Errorf("the browser gets %q, %v", all, err)
	}
}

// A browser that disconnects during authentication no longer uses a file descriptor or a slot, even if the
// authenticator ignores the request's context. Its late result has no effect.
func TestAbandonedRequestFreesItsResources(t *testing.T) {
	called, answer := make(chan bool), make(chan error)
	c := config{fast: true}
	c.maxConns = 1
	c.sse.Authenticate = func(r *http.Request) (auth.Identity, error) {
		called <- true
		if err := <-answer; err != nil {
			return auth.Identity{}, err
		}
		return auth.Insecure(r)
	}
	s := serve(t, c)
	for name, test := range map[string]struct {
		leave func(*visit)
		err   error
	}{
		"FIN, accepted":         {leave: func(v *visit) { v.leave(false) }},
		"RST, accepted":         {leave: func(v *visit) { v.leave(true) }},
		"half closed, accepted": {leave: func(v *visit) { v.socket.(*net.TCPConn).CloseWrite() }},
		"FIN, rejected":         {leave: func(v *visit) { v.leave(false) }, err: auth.ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			v := transports[0].visit(t, s)
			<-called
			_, socket := v.descriptor()
			test.leave(v)
			v.eventually("the descriptor is closed", func() bool { return !isOpen(socket) })
			v.eventually("the slot is free", func() bool { return s.server.OpenConns() == 0 })
			answer <- test.err
			if test.err == nil {
				s.wantEnd(hub.ReasonClosed)
			}
			stays := transports[0].visit(t, s)
			<-called
			answer <- nil
			stays.body()
			if n := s.server.OpenConns(); n != 1 {
				t.Errorf("%d connections are counted, want 1", n)
			}
			stays.leave(false)
			s.wantEnd(hub.ReasonClosed)
			stays.eventually("the slot is free again", func() bool { return s.server.OpenConns() == 0 })
		})
	}
}

// Responses of the fast path are the same bytes as those of net/http.
func TestFastPathRespondsLikeNetHTTP(t *testing.T) {
	type handler = http.HandlerFunc
	header := func(name string, values ...string) string { return name + ": " + strings.Join(values, ", ") }
	for name, c := range map[string]struct {
		query   string
		headers []string
		handler handler // nil: the streams'
	}{
		"unauthorized": {headers: []string{header("Accept", "text/event-stream")}},
		"bad query":    {query: "user=42&event=x"},
		"bad escape":   {query: "user=%zz"},
		"origin":       {query: "user=42", headers: []string{header("Origin", "https://evil.example")}},
		"CORS":         {query: "event=x", headers: []string{header("Origin", "https://app.example")}},
		"page":         {query: "user=42", headers: []string{header("Sec-Fetch-Mode", "navigate")}},
		"busy":         {query: "user=busy", headers: []string{header("Accept", "text/event-stream")}},
		"nothing":      {handler: func(http.ResponseWriter, *http.Request) {}},
		"text":         {handler: func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<p>hello") }},
		"encoded": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "x")
			io.WriteString(w, "hello")
		}},
		"no type": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			io.WriteString(w, "hello")
		}},
		"redirect": {handler: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login", http.StatusFound) }},
		"no content": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNoContent)
			if _, err := io.WriteString(w, "hello"); !errors.Is(err, http.ErrBodyNotAllowed) {
				t.Errorf("a body of no content: %v", err)
			}
		}},
		"not modified": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(http.StatusNotModified)
		}},
		"strange status": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(599) }},
		"too late": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Early", "1")
			w.WriteHeader(http.StatusTeapot)
			w.WriteHeader(http.StatusOK)
			w.Header().Set("X-Late", "1")
		}},
		"injection": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-A", "a\r\nX-B: b")
			w.Header()["X C"] = []string{"c"}
			w.Header()["x-lower"] = []string{" 1 ", "2"}
		}},
		"date": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Date", "yesterday")
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "hello")
		}},
		"panic": {handler: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hello")
			panic("a bug in the handler")
		}},
		"abort": {handler: func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "hello")
			panic(http.ErrAbortHandler)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			answer := func(front bool) string {
				site := config{fast: front, hub: hub.Config{MaxClientsPerUser: 1}}
				site.sse.Origins.Allow = []string{"https://app.example"}
				if c.handler != nil {
					site.mount = func(*sse.Handler) http.Handler { return c.handler }
				}
				s := serve(t, site)
				if c.query == "user=busy" {
					dial(t, s, request(c.query)).head()
				}
				p := dial(t, s, "GET /events?"+c.query+" HTTP/1.1\r\n"+strings.Join(append(c.headers, "Host: hub.example\r\nConnection: close\r\n\r\n"), "\r\n"))
				all, err := io.ReadAll(p.conn)
				if err != nil {
					t.Error(err)
				}
				return lengthOf.ReplaceAllString(plain(string(all)), "${1}N") // of a retry that varies
			}
			if got, want := answer(true), answer(false); got != want {
				t.Errorf("got  %q\nwant %q", got, want)
			}
		})
	}
}

var lengthOf = regexp.MustCompile(`(Content-Length: )[1-9]\d*`)

// Middleware may pass its own response writer to the handler, which must still be able to stream. The
// request's context ends with the handler.
func TestFastPathBehindMiddleware(t *testing.T) {
	ended := make(chan struct{})
	c := config{fast: true, mount: func(h *sse.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			context.AfterFunc(r.Context(), func() { close(ended) })
			h.ServeHTTP(wrapped{w}, r)
		})
	}}
	s := serve(t, c)
	p := dial(t, s, request("user=42"))
	p.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	p.head()
	s.hub.Publish(hub.User("42"), "", "hello")
	if got, want := plain(p.read(len("data: hello\nid: abcdefgh-1\n\n"))), "data: hello\nid: BOOT-1\n\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	<-ended
}

// wrapped is a response writer without Unwrap, as in middleware for Go before 1.20.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// otherEnd returns the file descriptor of the other end of a connection within this process.
func otherEnd(t *testing.T, conn net.Conn) (fd int, ok bool) {
	t.Helper()
	isOther := func(peer unix.Sockaddr) bool {
		switch local := conn.LocalAddr().(type) {
		case *net.TCPAddr:
			v4, ok := peer.(*unix.SockaddrInet4)
			return ok && v4.Port == local.Port
		case *net.UnixAddr:
			client, ok := peer.(*unix.SockaddrUnix)
			return ok && client.Name == local.Name
		}
		return false
	}
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		fd, err := strconv.Atoi(filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		if peer, err := unix.Getpeername(fd); err == nil && isOther(peer) {
			return fd, true
		}
	}
	return 0, false
}

// When file descriptors run out, connections are not closed. Accept returns a temporary error, as
// listeners of package net do, and net/http retries.
func TestFastPathWithoutDescriptorsKeepsConnections(t *testing.T) {
	_, listener := fastListener(t, config{}, listen(t, 128<<10, time.Second))
	defer listener.Close()
	before := descriptors()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for descriptors() < before+2 { // both ends
		time.Sleep(time.Millisecond)
	}
	free := useUpDescriptors(t)
	const half = "GET /else"
	io.WriteString(conn, half)
	// If the connection were closed, the peer would notice, and Accept would never return it.
	gone := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 1))
		gone <- err
		listener.Close()
	}()
	accepted, err := listener.Accept()
	if temporary, ok := err.(interface{ Temporary() bool }); !errors.Is(err, unix.EMFILE) || !ok || !temporary.Temporary() {
		t.Fatalf("without descriptors: %v, %v", accepted, err)
	}
	free()
	accepted, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(half))
	if _, err := io.ReadFull(accepted, got); string(got) != half {
		t.Errorf("got %q, %v", got, err)
	}
	accepted.Close()
	if err := <-gone; err != io.EOF {
		t.Errorf("the peer receives %v", err)
	}
}

// useUpDescriptors uses all file descriptors of the process until free is called.
func useUpDescriptors(t *testing.T) (free func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = uint64(descriptors() + 10)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var used []int
	free = sync.OnceFunc(func() {
		for _, fd := range used {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(free)
	for {
		fd, err := unix.Dup(0)
		if err != nil {
			return free
		}
		used = append(used, fd)
	}
}
