package sse_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

// A transport is one way in which a connection becomes a stream.
type transport struct {
	name           string
	fast, portable bool
	tls, http2     bool
	http10         bool
	inTwo          bool // the head of the request arrives in two packets
	body           bool // the request has a body
	unix           bool // over a Unix socket
	inherited      bool // another program has opened the listener

	query string // of visits, after the user
}

var transports = []transport{
	{name: "fast path", fast: true},
	{name: "head in two packets", fast: true, inTwo: true},
	{name: "HTTP/1.0", fast: true, http10: true},
	{name: "cleartext HTTP/2", fast: true, http2: true},
	{name: "request with a body", fast: true, body: true},
	{name: "net/http parked"},
	{name: "portable", portable: true},
	{name: "portable HTTP/2", portable: true, http2: true},
	{name: "TLS HTTP/1.1", tls: true},
	{name: "TLS request with a body", tls: true, body: true},
	{name: "TLS HTTP/2", tls: true, http2: true},
	{name: "Unix socket", fast: true, unix: true},
	{name: "Unix socket, head in two packets", fast: true, inTwo: true, unix: true},
	{name: "Unix socket, cleartext HTTP/2", fast: true, http2: true, unix: true},
	{name: "Unix socket, net/http parked", unix: true},
	{name: "Unix socket, portable", portable: true, unix: true},
	{name: "Unix socket, TLS HTTP/1.1", tls: true, unix: true},
	{name: "Unix socket, TLS HTTP/2", tls: true, http2: true, unix: true},
}

// eachTransport runs a test with each transport: invariant 13 of DESIGN.md. The tests run
// in parallel, each with its own server.
func eachTransport(t *testing.T, c config, test func(t *testing.T, s *testServer, tr transport)) {
	eachOf(t, transports, c, test)
}

func eachOf(t *testing.T, transports []transport, c config, test func(t *testing.T, s *testServer, tr transport)) {
	for _, tr := range transports {
		t.Run(tr.name, func(t *testing.T) {
			t.Parallel()
			c := c
			c.sse.Portable = tr.portable
			test(t, tr.serve(t, c), tr)
		})
	}
}

// serve serves with a listener as this transport needs it.
func (tr transport) serve(t *testing.T, c config) *testServer {
	t.Helper()
	c.fast, c.tls = tr.fast, tr.tls
	address := "127.0.0.1:0"
	if tr.unix {
		address = "unix:" + filepath.Join(t.TempDir(), "s")
	}
	var err error
	if sendBuffer, writeTimeout := cmp.Or(c.sendBuffer, sse.DefaultSendBuffer), 10*time.Second; tr.inherited {
		network, path := "tcp", strings.TrimPrefix(address, "unix:")
		if tr.unix {
			network = "unix"
		}
		var l net.Listener
		if l, err = net.Listen(network, path); err == nil {
			c.listener, err = sse.ListenOn(l, sendBuffer, writeTimeout)
		}
	} else {
		c.listener, err = sse.Listen(context.Background(), address, sendBuffer, writeTimeout)
	}
	if err != nil {
		t.Fatal(err)
	}
	return serve(t, c)
}

// A visit is one request for a stream, on its own connection.
type visit struct {
	t        *testing.T
	socket   net.Conn
	response chan *http.Response // has one item when the head was received; closed without one after an error
}

// visit sends a request for a stream of user 42 and does not wait for the response. The
// receive buffer of the connection is small: a reader that stops is soon noticed.
func (tr transport) visit(t *testing.T, s *testServer, headers ...string) *visit {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10) }); e != nil {
			return e
		}
		return err
	}}
	network, address := "tcp", s.listener.Addr().String()
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
		dialer.LocalAddr = &net.UnixAddr{Net: "unix", Name: fmt.Sprintf("@usercast-%d-%d", os.Getpid(), unixClients.Add(1))} // for otherEnd
	}
	conn, err := dialer.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	socket := conn
	t.Cleanup(func() { socket.Close() })
	v := &visit{t: t, socket: socket, response: make(chan *http.Response, 1)}
	trust := &tls.Config{InsecureSkipVerify: true}
	if tr.http2 {
		client := newClient(t, true, func() net.Conn { return socket })
		scheme := "http"
		if tr.tls {
			scheme = "https"
			over := client.Transport.(*http.Transport)
			over.TLSClientConfig = trust
			over.Protocols.SetUnencryptedHTTP2(false)
			over.Protocols.SetHTTP2(true)
		}
		r, err := http.NewRequest(http.MethodGet, scheme+"://hub.example/events?user=42"+tr.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Accept", "text/event-stream")
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			r.Header.Set(name, value)
		}
		go func() {
			defer close(v.response)
			if response, err := client.Do(r); err == nil {
				v.response <- response
			}
		}()
		return v
	}
	if tr.tls {
		conn = tls.Client(socket, trust)
	}
	if tr.body {
		headers = append(headers, "Content-Length: 4")
	}
	text := request("user=42"+tr.query, headers...)
	if tr.body {
		text += "body"
	}
	if tr.http10 {
		text = strings.Replace(text, "HTTP/1.1", "HTTP/1.0", 1)
	}
	if tr.inTwo {
		io.WriteString(conn, text[:30])
		text = text[30:]
		v.untilRead()
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(v.response)
		if response, err := http.ReadResponse(bufio.NewReaderSize(conn, 4<<10), nil); err == nil {
			v.response <- response
		}
	}()
	return v
}

// untilRead waits until the server has read the whole request.
func (v *visit) untilRead() {
	v.t.Helper()
	v.eventually("the server reads what was sent", func() bool {
		fd, ok := otherEnd(v.t, v.socket)
		if !ok {
			return false
		}
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err == nil && n == 0
	})
}

// body waits for the response and returns its body.
func (v *visit) body() io.Reader {
	v.t.Helper()
	response, ok := <-v.response
	if !ok || response.StatusCode != http.StatusOK {
		v.t.Fatalf("the response is %+v", response)
	}
	v.t.Cleanup(func() {
		v.socket.Close() // closing an HTTP/1.1 body reads it to its end
		response.Body.Close()
	})
	return response.Body
}

// unixClients numbers the names of clients of Unix sockets.
var unixClients atomic.Int64

// leave closes the connection, with a TCP reset if reset is true.
func (v *visit) leave(reset bool) {
	if tcp, ok := v.socket.(*net.TCPConn); ok && reset {
		tcp.SetLinger(0)
	}
	v.socket.Close()
}

// descriptor returns the file descriptor of the server's end and a unique name of its socket.
func (v *visit) descriptor() (fd int, name string) {
	v.t.Helper()
	fd, ok := otherEnd(v.t, v.socket)
	if !ok {
		v.t.Fatal("the server has no descriptor of the connection")
	}
	name, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
	if err != nil {
		v.t.Fatal(err)
	}
	return fd, name
}

// isOpen reports whether this process has a file descriptor of the socket with this name.
func isOpen(name string) bool {
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		if to, _ := os.Readlink(link); to == name {
			return true
		}
	}
	return false
}

func (v *visit) eventually(what string, is func() bool) {
	v.t.Helper()
	for start := time.Now(); !is(); time.Sleep(time.Millisecond) {
		if time.Since(start) > 10*time.Second {
			v.t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// When a browser disconnects during authentication, the request's context is canceled, and its slot and file
// descriptor are freed. This does not count as a rejection.
func TestInvariant13LeavingWhileAuthenticating(t *testing.T) {
	t.Parallel()
	for name, reset := range map[string]bool{"FIN": false, "RST": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tr := range transports {
				t.Run(tr.name, func(t *testing.T) {
					t.Parallel()
					called, canceled := make(chan bool), make(chan bool, 1)
					c := config{maxConns: 10}
					c.sse.Portable = tr.portable
					c.sse.Authenticate = func(r *http.Request) (auth.Identity, error) {
						called <- true
						select {
						case <-r.Context().Done():
							canceled <- true
						case <-time.After(10 * time.Second):
							canceled <- false
						}
						return auth.Identity{}, errors.New("not answered")
					}
					s := tr.serve(t, c)
					v := tr.visit(t, s)
					<-called
					_, name := v.descriptor()
					if n := s.server.OpenConns(); n != 1 {
						t.Errorf("%d connections are counted before", n)
					}
					v.leave(reset)
					if !<-canceled {
						t.Error("the context of the request is not canceled")
					}
					v.eventually("the descriptor is closed", func() bool { return !isOpen(name) })
					v.eventually("no connection is counted", func() bool { return s.server.OpenConns() == 0 })
					if n := s.handler.Stats().Rejects["auth-unavailable"]; n != 0 {
						t.Errorf("%d rejections are counted", n)
					}
				})
			}
		})
	}
}

// A disconnect of a browser is counted once, as closed, with each transport.
func TestInvariant13LeavingAStream(t *testing.T) {
	t.Parallel()
	for name, reset := range map[string]bool{"FIN": false, "RST": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, tr := range transports {
				t.Run(tr.name, func(t *testing.T) {
					t.Parallel()
					c := config{maxConns: 10}
					c.sse.Portable = tr.portable
					s := tr.serve(t, c)
					v := tr.visit(t, s)
					p := eventstream.NewReader(v.body())
					p.Block()
					s.hub.Publish(hub.User("42"), "", "hello")
					if e, err := p.Next(); e.Data != "hello" {
						t.Errorf("got %q, %v", e, err)
					}
					_, name := v.descriptor()
					v.leave(reset)
					s.wantEnd(hub.ReasonClosed)
					v.eventually("the descriptor is closed", func() bool { return !isOpen(name) })
					v.eventually("no connection is counted", func() bool { return s.server.OpenConns() == 0 })
					if n := s.hub.Stats(); n.Connects != 1 || n.Deliveries != 1 {
						t.Errorf("%d connects and %d deliveries are counted", n.Connects, n.Deliveries)
					}
				})
			}
		})
	}
}

// A second message must not wait until the first is acknowledged, which a browser may delay for 40 ms. The
// kernel must not send keep-alive probes: a single lost probe could end a stream. The send buffer has the same size
// with all transports.
func TestInvariant13SocketOptions(t *testing.T) {
	t.Parallel()
	const sendBuffer = 64 << 10
	inherited := []transport{
		{name: "inherited, fast path", fast: true, inherited: true},
		{name: "inherited, head in two packets", fast: true, inTwo: true, inherited: true},
		{name: "inherited, net/http parked", inherited: true},
		{name: "inherited Unix socket", fast: true, unix: true, inherited: true},
		{name: "inherited Unix socket, net/http parked", unix: true, inherited: true},
	}
	eachOf(t, slices.Concat(transports, inherited), config{sendBuffer: sendBuffer}, func(t *testing.T, s *testServer, tr transport) {
		v := tr.visit(t, s)
		v.body()
		fd, _ := v.descriptor()
		options := map[string][3]int{
			"TCP_NODELAY":      {unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
			"SO_KEEPALIVE":     {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0},
			"TCP_USER_TIMEOUT": {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 10_000},
			"SO_SNDBUF":        {unix.SOL_SOCKET, unix.SO_SNDBUF, 2 * sendBuffer}, // doubled by the kernel
			"SO_PROTOCOL":      {unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP},
		}
		if tr.unix {
			options = map[string][3]int{"SO_SNDBUF": options["SO_SNDBUF"], "SO_DOMAIN": {unix.SOL_SOCKET, unix.SO_DOMAIN, unix.AF_UNIX}}
		}
		for name, option := range options {
			if got, err := unix.GetsockoptInt(fd, option[0], option[1]); err != nil || got != option[2] {
				t.Errorf("%s is %d, %v; want %d", name, got, err, option[2])
			}
		}
	})
}

// A stream that is idle for longer than the server's read timeout and the write timeout stays open, and ends
// cleanly afterwards.
func TestInvariant13DeadlinesDoNotEndIdleStreams(t *testing.T) {
	t.Parallel()
	c := config{readTimeout: 400 * time.Millisecond}
	c.sse.WriteTimeout, c.sse.PingInterval = 400*time.Millisecond, time.Second
	eachTransport(t, c, func(t *testing.T, s *testServer, tr transport) {
		body := tr.visit(t, s).body()
		p := eventstream.NewReader(body)
		p.Block()
		for range 2 {
			if line, err := p.Line(); line != ":" || err != nil {
				t.Fatalf("got %q, %v", line, err)
			}
		}
		s.hub.Disconnect("42")
		if e, err := p.Next(); e.Type != "bye" || err != nil {
			t.Errorf("got %q, %v", e, err)
		}
		if e, err := p.Next(); err != io.EOF {
			t.Errorf("got %q, %v; want the end", e, err)
		}
		s.wantEnd(hub.ReasonKicked)
	})
}

// A stream ends on time at the expiry of its login or at the maximum age, even while its reader accepts a large message
// slowly. Later messages are not written. A reader that continues to read receives bye. A reader that stops is
// disconnected within the write timeout.
func TestInvariant7EndDuringASlowWrite(t *testing.T) {
	t.Parallel()
	const life, writeTimeout, large, bit = 2 * time.Second, time.Second, 900 << 10, 4 << 10
	for name, test := range map[string]struct {
		cause   hub.Reason
		readsOn bool
	}{
		"expired":                   {cause: hub.ReasonExpired},
		"max age, then it reads on": {cause: hub.ReasonMaxAge, readsOn: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config{sendBuffer: 16 << 10}
			c.sse.WriteTimeout, c.sse.PingInterval = writeTimeout, 100*time.Millisecond
			if test.readsOn {
				c.sse.WriteTimeout = 20 * time.Second // for reading the rest, which takes long on a busy machine
			}
			if test.cause == hub.ReasonMaxAge {
				c.sse.MaxAge = life
			} else {
				c.sse.Authenticate = func(*http.Request) (auth.Identity, error) {
					return auth.Identity{User: "42", Expires: time.Now().Add(life)}, nil
				}
			}
			eachTransport(t, c, func(t *testing.T, s *testServer, tr transport) {
				v := tr.visit(t, s)
				v.eventually("the stream is open", func() bool { return len(s.hub.ClientsOf(hub.User("42"))) > 0 })
				s.hub.Publish(hub.User("42"), "", strings.Repeat("x", large)) // at once: its life has begun
				opened, body, read := time.Now(), v.body(), 0
				trickle := func() error {
					time.Sleep(50 * time.Millisecond)
					n, err := io.ReadFull(body, make([]byte, bit))
					read += n
					return err
				}
				for len(s.hub.ClientsOf(hub.User("42"))) > 0 {
					if err := trickle(); err != nil {
						t.Fatalf("%v after %d bytes", err, read)
					}
				}
				// Reading everything at this speed takes 11 s.
				if took := time.Since(opened); took > 8*time.Second {
					t.Errorf("the client ended after %v", took)
				}
				s.hub.Publish(hub.User("42"), "", "published after the end")
				if test.readsOn {
					rest, err := io.ReadAll(body)
					text := string(rest)
					tail := plain(text[max(0, len(text)-200):]) // not of all: that is slow
					if want := `data: {"reason":"` + test.cause.String() + `"}` + "\nid: BOOT-1\n\n"; !strings.HasSuffix(tail, want) || err != nil {
						t.Errorf("it ends with %q, %v; want %q", tail, err, want)
					}
					if strings.Contains(text, "published after") {
						t.Error("it contains a message that was published after the end")
					}
				} else {
					for len(s.ends) == 0 && read < large {
						trickle()
					}
					if read >= large {
						t.Error("the stream was not closed before all was read")
					}
				}
				s.wantEnd(test.cause)
			})
		})
	}
}
