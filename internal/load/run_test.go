package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A faultyHub is a Redis server and a hub in one. Its rule determines which events the streams of a user receive for a
// message. It implements Publisher.
type faultyHub struct {
	url  string
	tls  *tls.Config                                    // configuration of its clients, for an https url
	rule func(user string, n int, data string) []string // returns the events for the nth message to a user

	mu      sync.Mutex
	streams map[chan string]string // value: its user
	count   map[string]int
	answers chan int64
	broken  chan struct{}
	once    sync.Once
	kill    func()
}

func event(data string) string { return "data: " + data + "\nid: a-1\n\n" }

func correct(_ string, _ int, data string) []string { return []string{event(data)} }

func startFaultyHub(t *testing.T, rule func(user string, n int, data string) []string) *faultyHub {
	t.Helper()
	return startFaultyHubOver(t, "http", rule)
}

// startFaultyHubOver starts a hub with scheme http, or with https and a certificate that only h.tls trusts.
func startFaultyHubOver(t *testing.T, scheme string, rule func(user string, n int, data string) []string) *faultyHub {
	t.Helper()
	h := &faultyHub{
		rule: rule, streams: make(map[chan string]string), count: make(map[string]int),
		answers: make(chan int64, 1e6), broken: make(chan struct{}),
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(h.stream))
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // failed handshakes
	if scheme == "https" {
		server.EnableHTTP2 = true
		server.StartTLS()
		h.tls = &tls.Config{RootCAs: x509.NewCertPool()}
		h.tls.RootCAs.AddCert(server.Certificate())
	} else {
		server.Start()
	}
	h.url = server.URL
	h.kill = sync.OnceFunc(func() {
		server.CloseClientConnections()
		server.Close()
	})
	t.Cleanup(h.kill)
	return h
}

func (h *faultyHub) stream(w http.ResponseWriter, r *http.Request) {
	events := make(chan string, 10000)
	h.mu.Lock()
	h.streams[events] = r.FormValue("user")
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.streams, events)
		h.mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, ":\nretry: 3000\nevent: ping\ndata: {}\nid: a-0\n\n")
	http.NewResponseController(w).Flush()
	for {
		select {
		case e := <-events:
			if e == "" {
				return
			}
			fmt.Fprint(w, e)
			http.NewResponseController(w).Flush()
		case <-r.Context().Done():
			return
		}
	}
}

func (h *faultyHub) Publish(user string, payload []byte) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	events := h.rule(user, h.count[user], string(payload))
	h.count[user]++
	for c, of := range h.streams {
		if of == user || user == "*" {
			for _, e := range events {
				c <- e
			}
		}
	}
	h.answers <- 1
	return nil
}

func (h *faultyHub) Flush() error { return nil }

func (h *faultyHub) Receive() (int64, error) {
	select {
	case n := <-h.answers:
		return n, nil
	case <-h.broken:
		return 0, errors.New("broken")
	}
}

func (h *faultyHub) Close() { h.once.Do(func() { close(h.broken) }) }

func (h *faultyHub) config(t *testing.T) Config {
	t.Helper()
	target, err := ParseTarget(t.Context(), h.url+"/events?user={user}")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Targets: []Target{target}, Streams: 20, Users: 10, Ramp: 1e6,
		Outstanding: 8, Messages: 100, Duration: 20 * time.Second, Size: 200,
		Patience: 20 * time.Second, TLS: h.tls, // Patience also limits dials and handshakes, which are slow on a busy host
		Dial: func(context.Context) (Publisher, error) { return h, nil },
	}
}

func mustRun(t *testing.T, cfg Config) *Report {
	t.Helper()
	report, err := Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return report
}

var ways = map[string]func(*Config){
	"HTTP/1.1":              func(*Config) {},
	"HTTP/1.1 portable":     func(c *Config) { c.portable = true },
	"HTTP/2":                func(c *Config) { c.HTTP2 = true },
	"broadcast":             func(c *Config) { c.Broadcast = true },
	"open loop":             func(c *Config) { c.Outstanding, c.Rate = 0, 2000 },
	"large payloads":        largePayloads,
	"large payloads HTTP/2": func(c *Config) { largePayloads(c); c.HTTP2 = true },
}

// largePayloads sends three times streamWindow over each stream.
func largePayloads(c *Config) {
	c.Size, c.Messages, c.Users, c.Streams = 300<<10, 20, 2, 4
}

// transports are the suffixes of test names by scheme.
var transports = map[string]string{"http": "", "https": " over TLS"}

func TestCorrectHubHasNoFaults(t *testing.T) {
	for scheme, suffix := range transports {
		for name, way := range ways {
			t.Run(name+suffix, func(t *testing.T) {
				if testing.Short() && strings.HasPrefix(name, "large") {
					t.Skip("moves 12 MB")
				}
				cfg := startFaultyHubOver(t, scheme, correct).config(t)
				way(&cfg)
				fan := int64(2)
				if cfg.Broadcast {
					fan = int64(cfg.Streams)
				}
				r := mustRun(t, cfg)
				if len(r.Faults) > 0 || len(r.Loops) != 1 {
					t.Fatalf("%d loops, faults %q", len(r.Loops), r.Faults)
				}
				l := r.Loops[0]
				n := int64(cfg.Messages)
				if l.Messages != n || l.Unconfirmed != 0 || l.Expected != n*fan || l.Delivered != n*fan || l.Latency.Count != n*fan || l.LastStream.Count != n {
					t.Errorf("%+v", l)
				}
			})
		}
	}
}

// Each reader detects each failure, counts it exactly and reports it.
func TestFaultyHubIsDetected(t *testing.T) {
	const gap = "event: gap\ndata: {\"reason\":\"too-large\"}\n\n"
	nth := func(n int, events func(data string) []string) func(string, int, string) []string {
		return func(_ string, i int, data string) []string {
			if i == n {
				return events(data)
			}
			return []string{event(data)}
		}
	}
	swapped := ""
	for name, c := range map[string]struct {
		rule  func(user string, n int, data string) []string
		want  Checks
		fault string
	}{
		"loses":      {nth(2, func(string) []string { return nil }), Checks{Lost: 20}, "20 messages were lost without a gap"},
		"announces":  {nth(2, func(string) []string { return []string{gap} }), Checks{LostAnnounced: 20}, ""},
		"gap only":   {nth(2, func(data string) []string { return []string{gap, event(data)} }), Checks{}, ""},
		"duplicates": {nth(2, func(data string) []string { return []string{event(data), event(data)} }), Checks{Duplicated: 20}, "20 messages were duplicated"},
		"wrong user": {nth(2, func(data string) []string {
			return []string{event(data), event(strings.Replace(data, `"user":"`, `"user":"1`, 1))}
		}), Checks{WrongUser: 20}, "20 messages were delivered to the wrong user"},
		"foreign": {nth(2, func(data string) []string { return []string{event(data), event("hello")} }), Checks{Foreign: 20}, ""},
		"swaps": {func(_ string, i int, data string) []string {
			switch i {
			case 2:
				swapped = data
				return nil
			case 3:
				return []string{event(data), event(swapped)}
			}
			return []string{event(data)}
		}, Checks{Misordered: 2}, "2 messages were out of order"},
	} {
		for way, set := range map[string]func(*Config){"HTTP/1.1": ways["HTTP/1.1"], "HTTP/1.1 portable": ways["HTTP/1.1 portable"], "HTTP/2": ways["HTTP/2"]} {
			t.Run(name+" "+way, func(t *testing.T) {
				cfg := startFaultyHub(t, c.rule).config(t)
				set(&cfg)
				if name == "swaps" {
					cfg.Users, cfg.Streams = 1, 2
				}
				r := mustRun(t, cfg)
				got := r.Checks
				got.Gaps, got.Ended = nil, nil
				if fmt.Sprint(got) != fmt.Sprint(c.want) {
					t.Errorf("checks %+v, want %+v", got, c.want)
				}
				if c.fault == "" && len(r.Faults) > 0 || c.fault != "" && (len(r.Faults) != 1 || r.Faults[0] != c.fault) {
					t.Errorf("faults %q, want %q", r.Faults, c.fault)
				}
			})
		}
	}
}

func TestEndedStreamsAreReportedWithoutWaiting(t *testing.T) {
	for scheme, suffix := range transports {
		for way, set := range map[string]func(*Config){"HTTP/1.1": ways["HTTP/1.1"], "HTTP/1.1 portable": ways["HTTP/1.1 portable"], "HTTP/2": ways["HTTP/2"]} {
			t.Run(way+suffix, func(t *testing.T) {
				var h *faultyHub
				published := 0
				h = startFaultyHubOver(t, scheme, func(user string, n int, data string) []string {
					if published++; published == 50 {
						go h.kill()
					}
					if published >= 50 {
						return nil
					}
					return []string{event(data)}
				})
				cfg := h.config(t)
				set(&cfg)
				cfg.Messages, cfg.Patience = 0, 10*time.Second
				begin := time.Now()
				r := mustRun(t, cfg)
				if took := time.Since(begin); took > 8*time.Second {
					t.Errorf("it took %v", took)
				}
				if total(r.Checks.Ended) != 20 || len(r.Faults) != 1 || !strings.HasPrefix(r.Faults[0], "20 streams ended early") {
					t.Errorf("ended %v, faults %q", r.Checks.Ended, r.Faults)
				}
			})
		}
	}
}

// The reason of a failed TLS connection is reported, and no stream is opened over it.
func TestTLSFailuresAreReported(t *testing.T) {
	plain := startFaultyHub(t, correct)
	plain.url = strings.Replace(plain.url, "http://", "https://", 1)
	secure := startFaultyHubOver(t, "https", correct)
	onlyHTTP1 := httptest.NewUnstartedServer(http.NotFoundHandler())
	onlyHTTP1.Config.ErrorLog = log.New(io.Discard, "", 0)
	onlyHTTP1.StartTLS()
	defer onlyHTTP1.Close()
	noHTTP, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: onlyHTTP1.TLS.Certificates, NextProtos: []string{"acme-tls/1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer noHTTP.Close()
	go func() {
		for {
			conn, err := noHTTP.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).Handshake()
			conn.Close()
		}
	}()
	for name, c := range map[string]struct {
		hub  *faultyHub
		set  func(*Config)
		want Reason
	}{
		"unknown CA":   {secure, func(c *Config) { c.TLS = nil }, reasonUnknownCA},
		"not verified": {secure, func(c *Config) { c.TLS = &tls.Config{InsecureSkipVerify: true} }, ""},
		"another name": {secure, func(c *Config) {
			c.Targets[0].Host = strings.Replace(c.Targets[0].Host, "127.0.0.1", "hub.example", 1)
		}, reasonWrongName},
		"example.com is in it": {secure, func(c *Config) {
			c.Targets[0].Host = strings.Replace(c.Targets[0].Host, "127.0.0.1", "example.com", 1)
		}, ""},
		"no TLS": {plain, func(*Config) {}, reasonNoTLS},
		"no HTTP/2": {secure, func(c *Config) {
			c.TLS, c.HTTP2 = &tls.Config{InsecureSkipVerify: true}, true
			c.Targets[0].Addr = onlyHTTP1.Listener.Addr().String()
		}, reasonNoHTTP2},
		"no HTTP/1.1": {secure, func(c *Config) {
			c.TLS = &tls.Config{InsecureSkipVerify: true}
			c.Targets[0].Addr = noHTTP.Addr().String()
		}, reasonNoHTTP1},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := c.hub.config(t)
			cfg.Streams, cfg.Users = 4, 2
			c.hub.broken, c.hub.once = make(chan struct{}), sync.Once{}
			c.set(&cfg)
			r := mustRun(t, cfg)
			if c.want == "" && r.Connect.Opened != 4 || c.want != "" && r.Connect.FailedBy[c.want] != 4 {
				t.Errorf("%d opened, failed by %v, want %q", r.Connect.Opened, r.Connect.FailedBy, c.want)
			}
		})
	}
}

func TestBrokenPublisherIsReported(t *testing.T) {
	h := startFaultyHub(t, correct)
	cfg := h.config(t)
	cfg.Messages = 0
	h.rule = func(user string, n int, data string) []string {
		if n == 5 {
			h.Close()
		}
		return correct(user, n, data)
	}
	r := mustRun(t, cfg)
	if len(r.Faults) != 1 || r.Faults[0] != "publishing stopped early: broken" {
		t.Errorf("faults %q", r.Faults)
	}
}

func TestInterruptedRunIsReported(t *testing.T) {
	h := startFaultyHub(t, correct)
	cfg := h.config(t)
	cfg.Messages = 0
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	h.rule = func(user string, n int, data string) []string {
		if n == 5 {
			cancel()
		}
		return correct(user, n, data)
	}
	r, err := Run(ctx, cfg)
	if err != nil || !r.Interrupted || len(r.Faults) > 0 || r.Loops[0].Delivered == 0 || r.Loops[0].Delivered != r.Loops[0].Expected {
		t.Errorf("%v, %+v", err, r)
	}
}

// In an open loop, the latency of delayed messages includes the time in which the publisher stalled.
func TestOpenLoopLatencyCountsFromTheDueTime(t *testing.T) {
	const stall = 200 * time.Millisecond
	h := startFaultyHub(t, func(_ string, n int, data string) []string {
		if n == 10 {
			time.Sleep(stall) // like a publisher with a full socket
		}
		return []string{event(data)}
	})
	cfg := h.config(t)
	cfg.Users, cfg.Streams, cfg.Outstanding, cfg.Rate = 1, 1, 0, 500
	l := mustRun(t, cfg).Loops[0]
	// Ten messages are published before the stall, and about 100 are due during it.
	if l.Latency.P50 < 5 || l.LagMax < milliseconds(stall)/2 {
		t.Errorf("latency %+v, lag %v ms", l.Latency, l.LagMax)
	}
}

func TestRejectionsAreCountedByReason(t *testing.T) {
	var n int
	var mu sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		switch n++; n % 2 {
		case 0:
			w.WriteHeader(401)
			fmt.Fprint(w, `{"error":"not authenticated"}`)
		default:
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, ":\nretry: 15000\nevent: busy\ndata: {\"reason\":\"user-limit\"}\n\n")
		}
	}))
	defer server.Close()
	h := startFaultyHub(t, correct)
	h.url = server.URL
	for _, way := range []string{"HTTP/1.1", "HTTP/1.1 portable"} {
		cfg := h.config(t)
		ways[way](&cfg)
		h.broken, h.once = make(chan struct{}), sync.Once{}
		r := mustRun(t, cfg)
		if c := r.Connect; c.Failed != 20 || c.FailedBy[statusReason(401)] != 10 || c.FailedBy[busyReason("user-limit")] != 10 || c.Untried != 0 {
			t.Errorf("%s: %+v", way, c)
		}
		if len(r.Faults) != 1 || !strings.Contains(r.Faults[0], `{"error":"not authenticated"}`) || !strings.Contains(r.Faults[0], "--max-clients-per-user 0") {
			t.Errorf("%s: faults %q", way, r.Faults)
		}
	}
}

func TestUnreachableHubIsReportedSoon(t *testing.T) {
	h := startFaultyHub(t, correct)
	h.kill()
	cfg := h.config(t)
	cfg.Streams, cfg.Users, cfg.Ramp = 1000, 1000, 500
	r := mustRun(t, cfg)
	if c := r.Connect; c.FailedBy[reasonRefused] < maxFirstFailures || c.Untried == 0 || c.Failed+c.Untried != 1000 || c.Seconds > 1 {
		t.Errorf("%+v", c)
	}
}
