package sse_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/certtest"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

func TestMain(m *testing.M) {
	flag.Parse()
	tests := 4 * runtime.GOMAXPROCS(0) // they spend most of their time waiting
	if testing.Short() {
		tests *= 4 // without the race detector and without tests of other programs at the same time
	}
	_ = flag.Set("test.parallel", strconv.Itoa(tests))
	goleak.VerifyTestMain(m)
}

// A testServer is a hub and a handler behind a real HTTP server. When the test ends, it drains as the
// program does. No goroutine must be left, and the counters must add up.
type testServer struct {
	t        testing.TB
	hub      *hub.PubSub
	feed     *hub.StreamFeed // set instead of hub if config.query is set
	handler  *sse.Handler
	listener net.Listener
	server   *sse.Server // set by serve
	ends     chan string // the cause of each stream that ended, from the log
}

type config struct {
	hub      hub.Config // limits and history are disabled unless they are set
	query    func(*hub.Query)
	sse      sse.Config
	listener net.Listener // nil: TCP on loopback

	replaysAreLost bool // connections break during replays

	maxConns int // 0: no limit

	// For eachHTTP1Transport.
	sendBuffer int                             // of the listener; 0: default
	takesTime  bool                            // skip some transports in short mode
	mount      func(*sse.Handler) http.Handler // nil: the handler itself
	fast       bool                            // use the fast path

	// For eachTransport.
	tls         bool
	readTimeout time.Duration // of the server; 0: none
}

func newTestServer(t testing.TB, c config) *testServer {
	t.Helper()
	s := &testServer{t: t, ends: make(chan string, 1000), listener: c.listener}
	c.hub.Encode, c.hub.BroadcastUser = sse.EncodeEntry, "*"
	if c.hub = unlimited(c.hub); c.query != nil {
		s.feed = hub.NewStreamFeed(c.hub, c.query)
		s.hub = &hub.PubSub{Hub: s.feed.Hub}
	} else {
		s.hub = hub.NewPubSub(c.hub)
	}
	c.sse.Hub, c.sse.Logger = s.hub.Hub, slog.New(endLog{slog.DiscardHandler, s.ends})
	if c.sse.Authenticate == nil {
		c.sse.Authenticate = auth.Insecure
	}
	s.handler = sse.New(c.sse)
	t.Cleanup(func() {
		s.hub.Refuse()
		s.hub.Finish(hub.ReasonDrain, 0)
		s.handler.Wait()
		s.hub.Close()
		s.checkConservation(!c.replaysAreLost)
	})
	return s
}

func unlimited(c hub.Config) hub.Config {
	c.QueueFrames = cmp.Or(c.QueueFrames, hub.NoLimit)
	c.QueueBytes = cmp.Or(c.QueueBytes, hub.NoLimit)
	c.QueueGrace = cmp.Or(c.QueueGrace, hub.Off)
	c.QueueTotalBytes = cmp.Or(c.QueueTotalBytes, hub.NoLimit)
	c.MaxClientsPerUser = cmp.Or(c.MaxClientsPerUser, hub.NoLimit)
	c.FanOut = cmp.Or(c.FanOut, hub.NoLimit)
	c.GapSpread = cmp.Or(c.GapSpread, hub.Off)
	c.HistoryPerUser = cmp.Or(c.HistoryPerUser, hub.Off)
	c.HistoryAge = cmp.Or(c.HistoryAge, hub.Off)
	c.HistoryBytes = cmp.Or(c.HistoryBytes, hub.Off)
	return c
}

// serve serves on c.listener until the test ends.
func serve(t testing.TB, c config) *testServer {
	t.Helper()
	if c.listener == nil {
		c.listener = listen(t, 128<<10, 10*time.Second)
	}
	s := newTestServer(t, c)
	var handler http.Handler = s.handler
	if c.mount != nil {
		handler = c.mount(s.handler)
	}
	sc := sse.ServerConfig{Streams: s.handler, Handler: handler, MaxConns: c.maxConns, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	if c.tls {
		sc.TLS = certificate(t)
	}
	l := c.listener
	if !c.fast {
		l = struct{ net.Listener }{l}
	}
	var err error
	if s.server, err = sse.NewServerOn(l, sc); err != nil {
		t.Fatal(err)
	}
	if !c.fast {
		s.server.HTTP().Handler = handler // without closeHTTP1
	}
	if c.readTimeout > 0 {
		s.server.HTTP().ReadTimeout = c.readTimeout
	}
	done := make(chan error)
	go func() { done <- s.server.Serve() }()
	t.Cleanup(func() { // runs before that of the hub: the port is closed while streams continue
		s.server.Listener().Close()
		<-done
	})
	t.Cleanup(func() {
		s.hub.Refuse()
		s.hub.Finish(hub.ReasonDrain, 0)
		s.handler.Wait()
		s.server.Close()
	})
	return s
}

func listen(t testing.TB, sendBuffer int, writeTimeout time.Duration) net.Listener {
	t.Helper()
	l, err := sse.Listen(context.Background(), "127.0.0.1:0", sendBuffer, writeTimeout)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func (s *testServer) url(query string) string {
	return "http://" + s.listener.Addr().String() + "/events?" + query
}

func (s *testServer) checkConservation(replaysArrive bool) {
	s.t.Helper()
	n := s.hub.Stats()
	var discarded, ended uint64
	for cause, frames := range n.FramesDiscarded {
		discarded += frames
		ended += n.Disconnects[cause]
	}
	if n.FramesEnqueued != n.Deliveries+discarded || n.FramesQueued != 0 || n.QueueBytes != 0 {
		s.t.Errorf("enqueued %d, delivered %d, discarded %d, queued %d frames and %d bytes",
			n.FramesEnqueued, n.Deliveries, discarded, n.FramesQueued, n.QueueBytes)
	}
	if n.Clients != 0 || n.Connects != ended {
		s.t.Errorf("%d clients left; %d connects, %d disconnects", n.Clients, n.Connects, ended)
	}
	if got := s.handler.Stats().Delivery.Count; replaysArrive && got != n.Deliveries-n.Replayed {
		s.t.Errorf("%d delivery times, %d deliveries, %d of them replays", got, n.Deliveries, n.Replayed)
	}
}

// wantEnd waits for the next stream to end.
func (s *testServer) wantEnd(cause hub.Reason) {
	s.t.Helper()
	if got := <-s.ends; got != cause.String() {
		s.t.Errorf("a stream ended as %q, want %q", got, cause)
	}
	if n := s.hub.Stats().Disconnects[cause]; n == 0 {
		s.t.Errorf("no disconnect is counted as %q", cause)
	}
}

// ended reports whether a stream has ended, and as what.
func (s *testServer) ended() string {
	select {
	case cause := <-s.ends:
		return cause
	default:
		return ""
	}
}

// endLog sends the reason of each ended stream to a channel.
type endLog struct {
	slog.Handler
	ends chan<- string
}

func (endLog) Enabled(context.Context, slog.Level) bool { return true }

func (l endLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "stream ended" {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "reason" {
				l.ends <- a.Value.String()
			}
			return true
		})
	}
	return nil
}

// A pipeListener accepts net.Pipe connections. They work with the clock of a synctest bubble, and do not buffer
// bytes between the two ends.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	writes atomic.Int64            // of the server's ends
	wrap   func(net.Conn) net.Conn // wraps the server's end; nil: no wrapper
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) dial() net.Conn {
	client, server := net.Pipe()
	if l.wrap != nil {
		server = l.wrap(server)
	}
	l.conns <- countingConn{server, &l.writes}
	return client
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

type countingConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countingConn) Write(b []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(b)
}

// bubble runs a test in a synctest bubble, with a server on net.Pipe connections.
func bubble(t *testing.T, c config, test func(t *testing.T, s *testServer, l *pipeListener)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := newPipeListener()
		c.listener = l
		test(t, serve(t, c), l)
	})
}

// request returns the text of a browser's request.
func request(query string, headers ...string) string {
	return "GET /events?" + query + " HTTP/1.1\r\nHost: hub.example\r\nAccept: text/event-stream\r\n" +
		strings.Join(append(headers, "\r\n"), "\r\n")
}

// A peer is the other end of a plain connection.
type peer struct {
	t    testing.TB
	conn net.Conn
	mu   sync.Mutex
	got  bytes.Buffer
	eof  bool
}

// dial sends a request over a new connection to the server, and does not read yet.
func dial(t testing.TB, s *testServer, request string) *peer {
	t.Helper()
	conn, err := net.Dial("tcp", s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return ask(t, conn, request)
}

// ask sends a request over a connection, and does not read yet.
func ask(t testing.TB, conn net.Conn, request string) *peer {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return &peer{t: t, conn: conn}
}

// open sends a request over a connection, and reads everything that arrives.
func open(t testing.TB, conn net.Conn, request string) *peer {
	t.Helper()
	p := ask(t, conn, request)
	go p.readAll()
	return p
}

func (p *peer) readAll() {
	b := make([]byte, 64<<10)
	for {
		n, err := p.conn.Read(b)
		p.mu.Lock()
		p.got.Write(b[:n])
		p.eof = err != nil
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// read reads n bytes, or up to the end, after ask.
func (p *peer) read(n int) string {
	b := make([]byte, n)
	n, err := io.ReadFull(p.conn, b)
	if err != nil {
		p.eof = true
	}
	return string(b[:n])
}

// head reads up to the end of the opening block, after ask.
func (p *peer) head() string {
	p.t.Helper()
	var head strings.Builder
	for b := make([]byte, 1); strings.Count(head.String(), "\n\n") < 1; {
		if _, err := p.conn.Read(b); err != nil {
			p.t.Fatalf("%v after %q", err, head.String())
		}
		head.Write(b)
	}
	return head.String()
}

// text returns everything that has arrived since open, and whether the stream has ended. Call it after
// synctest.Wait.
func (p *peer) text() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got.String(), p.eof
}

// since returns what has arrived after the first n bytes, processed by plain.
func (p *peer) since(n int) string {
	synctest.Wait()
	text, _ := p.text()
	return plain(text[n:])
}

// size returns the number of bytes that have arrived.
func (p *peer) size() int {
	synctest.Wait()
	text, _ := p.text()
	return len(text)
}

var (
	bootOf  = regexp.MustCompile(`\bid: [a-z][a-z2-7]{7}-`)
	gapOf   = regexp.MustCompile(`(\bid: \S*\.)[a-z][a-z2-7]{7}\.`)
	retryOf = regexp.MustCompile(`retry: \d+\n`)
	dateOf  = regexp.MustCompile(`Date: .* GMT\r\n`)
)

// plain replaces parts that differ between runs.
func plain(text string) string {
	text = bootOf.ReplaceAllString(text, "id: BOOT-")
	text = gapOf.ReplaceAllString(text, "${1}BOOT.")
	text = retryOf.ReplaceAllString(text, "retry: MS\n")
	return dateOf.ReplaceAllString(text, "Date: NOW\r\n")
}

// A browser is an HTTP client that reads one stream.
type browser struct {
	*eventstream.Reader
	t      testing.TB
	head   *http.Response
	cancel context.CancelFunc
}

// browse opens a stream as an EventSource does, and reads its opening block.
func browse(t testing.TB, client *http.Client, url string, headers ...string) *browser {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	b := &browser{eventstream.NewReader(response.Body), t, response, cancel}
	if response.StatusCode == http.StatusOK {
		if e, _, err := b.Block(); e.Type != "ping" || err != nil {
			t.Fatalf("the opening block is %q, %v", e, err)
		}
	}
	return b
}

// want reads the next event.
func (b *browser) want(eventType, data string) {
	b.t.Helper()
	e, err := b.Next()
	if err != nil || e.Type != eventType || e.Data != data {
		b.t.Errorf("got %q, %v; want %s, %q", e, err, eventType, data)
	}
}

// wantEnd reads the end of the stream. It must be a clean end, because a browser treats any other as an
// error.
func (b *browser) wantEnd() {
	b.t.Helper()
	if e, err := b.Next(); err != io.EOF {
		b.t.Errorf("got %q, %v; want the end", e, err)
	}
}

// newClient returns an HTTP client for one protocol. dial may be nil.
func newClient(t testing.TB, http2 bool, dial func() net.Conn) *http.Client {
	transport := &http.Transport{Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: 64 << 10}}
	transport.Protocols.SetHTTP1(!http2)
	transport.Protocols.SetUnencryptedHTTP2(http2)
	if dial != nil {
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) { return dial(), nil }
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// protocols runs a test over HTTP/1.1, detached, and HTTP/2 without TLS.
func protocols(t *testing.T, test func(t *testing.T, http2 bool)) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprint("HTTP/", map[bool]string{false: "1.1", true: "2"}[http2]), func(t *testing.T) { test(t, http2) })
	}
}

// certificate returns the TLS configuration of test servers.
func certificate(t testing.TB) *tls.Config {
	t.Helper()
	pair := certtest.New(t, "hub.example")
	cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

// parseStream parses a complete stream, and omits the event of its opening block.
func parseStream(t *testing.T, stream string) (events []eventstream.Event) {
	t.Helper()
	events, _ = eventstream.Parse(stream)
	if len(events) == 0 || events[0].Type != "ping" {
		t.Fatalf("the stream begins with %q", events)
	}
	return events[1:]
}

// settled waits until the number of goroutines is at most bound, because some are about to end, and returns it. It
// gives up after a while.
func settled(bound int) int {
	for start := time.Now(); runtime.NumGoroutine() > bound && time.Since(start) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	return runtime.NumGoroutine()
}
