package attack

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// Malformed channel names and payloads are counted, and do not affect other users.
func TestMalformedChannelsAreCountedAndHarmless(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	bystander := h.Open(t, "user=42")
	invalid, globs := h.Open(t, "user=%ff%fe"), h.Open(t, "user=a[*]?")

	huge := strings.Repeat("u", 1<<20)
	want := make(map[string]float64)
	for channel, kind := range map[string]string{
		"user-":                               "malformed",
		"user-:":                              "malformed",
		"user-:topic":                         "malformed",
		"user-::":                             "malformed",
		"user-" + huge:                        "unrouted",
		"user-" + huge + ":" + huge:           "too_large", // a channel name over 2 MiB is discarded
		"user-\xff\xfe\xfd":                   "unrouted",
		"user-\x00":                           "unrouted",
		"user-\r\n":                           "unrouted",
		"user- 42":                            "unrouted",
		"user-42 ":                            "unrouted",
		"user-4?":                             "unrouted",
		"user-[42]":                           "unrouted",
		"user-**":                             "unrouted",
		"user-\xff\xfe:\xff":                  "routed",
		"user-a[*]?:[*":                       "routed",
		"user-42:\xff\xfe\r\nid: 1\n\n":       "routed",
		"user-42:" + strings.Repeat("t", 1e6): "routed",
	} {
		if n := app.Publish(t, channel, "for "+kind); n != 1 {
			t.Errorf("%d hubs received %.40q", n, channel)
		}
		want["usercast_messages_received_total"]++
		want["usercast_messages_"+kind+"_total"]++
		h.WantMetrics(t, want)
	}
	invalid.Want(t, "for routed")
	globs.Want(t, "for routed")
	bystander.Want(t, "for routed", "for routed")
	app.Publish(t, "user-42", "last")
	bystander.Want(t, "last")
}

func TestPayloadOverTheLimitIsAGapForItsUserOnly(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-payload", "1000")
	app := hubtest.NewPublisher(t, server.Addr())
	p, filtered, stranger := h.Open(t, "user=42"), h.Open(t, "user=42&topic=a"), h.Open(t, "user=7")
	app.Publish(t, "user-42:b", strings.Repeat("x", 1000))
	app.Publish(t, "user-42:b", strings.Repeat("x", 1001))
	app.Publish(t, "user-42:a", strings.Repeat("x", 20<<20))
	app.Publish(t, "user-nobody", strings.Repeat("x", 1001))
	app.Publish(t, "user-*:a", "last")

	p.Want(t, strings.Repeat("x", 1000))
	p.WantGap(t, "too-large")
	p.WantGap(t, "too-large")
	p.Want(t, "last")
	filtered.WantGap(t, "too-large") // of a topic in its filter
	filtered.Want(t, "last")
	stranger.Want(t, "last")
	h.WantMetrics(t, map[string]float64{"usercast_messages_too_large_total": 3, "usercast_gaps_total" + hubtest.Reason("too-large"): 3})
	app.Publish(t, "user-*:a", strings.Repeat("x", 1001)) // a broadcast: a gap for all
	for _, p := range []*ssetest.Stream{p, filtered, stranger} {
		p.WantGap(t, "too-large")
	}
}

// Each request that cannot open a stream has a clear error response, and is counted.
func TestInvalidRequestsAreRejectedAndCounted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	before := h.Scrape(t)
	for _, test := range []struct {
		name, method, target string
		headers              []string
		code                 int
		reason               string // label of the counter; "": not counted, rejected earlier
	}{
		{"no user", "GET", "/events", nil, 401, "unauthorized"},
		{"an empty user", "GET", "/events?user=", nil, 403, "bad-user"},
		{"the broadcast user", "GET", "/events?user=*", nil, 403, "bad-user"},
		{"a user with a topic", "GET", "/events?user=42:a", nil, 403, "bad-user"},
		{"two users", "GET", "/events?user=1&user=2", nil, 400, "bad-request"},
		{"a malformed escape", "GET", "/events?user=%zz", nil, 400, "bad-request"},
		{"an incomplete escape", "GET", "/events?user=42&topic=%f", nil, 400, "bad-request"},
		{"a semicolon", "GET", "/events?user=42;topic=a", nil, 400, "bad-request"},
		{"a query that is too long", "GET", "/events?user=42&topic=" + strings.Repeat("x", 20_000), nil, 400, "bad-request"},
		{"an unknown value of event", "GET", "/events?user=42&event=name", nil, 400, "bad-request"},
		{"an unknown value of ping", "GET", "/events?user=42&ping=1", nil, 400, "bad-request"},
		{"another origin", "GET", "/events?user=42", []string{"Origin: https://evil.example"}, 403, "origin"},
		{"an image on another site", "GET", "/events?user=42", []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors"}, 403, "origin"},
		{"HEAD", "HEAD", "/events?user=42", nil, 405, "bad-request"},
		{"POST", "POST", "/events?user=42", nil, 405, "bad-request"},
		{"PUT", "PUT", "/events?user=42", nil, 405, "bad-request"},
		{"DELETE", "DELETE", "/events?user=42", nil, 405, "bad-request"},
		{"PATCH", "PATCH", "/events?user=42", nil, 405, "bad-request"},
		{"OPTIONS", "OPTIONS", "/events?user=42", nil, 405, "bad-request"},
		{"TRACE", "TRACE", "/events?user=42", nil, 405, "bad-request"},
		{"a non-standard method", "BREW", "/events?user=42", nil, 405, ""},
		{"another path", "GET", "/event", nil, 404, ""},
		{"a path below /events", "GET", "/events/42", nil, 404, ""},
		{"the root", "GET", "/", nil, 404, ""},
		{"metrics on the public listener", "GET", "/metrics", nil, 404, ""},
		{"profiles on the public listener", "GET", "/debug/pprof/", nil, 404, ""},
		{"publishing on the public listener", "POST", "/publish", nil, 404, ""},
		{"POST for health", "POST", "/livez", nil, 405, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := hubtest.Request(t, test.method, h.PublicURL(test.target), test.headers...)
			if a.Status != test.code {
				t.Fatalf("%s %s: status %d %s, want %d", test.method, test.target, a.Status, a.Body, test.code)
			}
			if a.Status == 405 && a.Header.Get("Allow") == "" {
				t.Error("405 without Allow")
			}
			var problem struct{ Error string }
			if test.method == "HEAD" {
				// HEAD has no body
			} else if err := json.Unmarshal([]byte(a.Body), &problem); err != nil || problem.Error == "" || strings.Contains(problem.Error, "\n") {
				t.Errorf("the response is not one JSON object with an error: %q", a.Body)
			}
			after := h.Scrape(t)
			for sample, v := range after {
				counted := v - before[sample]
				want := 0.0
				if sample == `usercast_rejects_total{reason="`+test.reason+`"}` {
					want = 1
				}
				if strings.HasPrefix(sample, "usercast_rejects_total") && counted != want {
					t.Errorf("%s went up by %v, want %v", sample, counted, want)
				}
			}
			if after["usercast_connects_total"] != 0 {
				t.Error("a stream was opened")
			}
			before = after
		})
	}
}

func TestUnusualValidRequestsAreAccepted(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	for name, request := range map[string]string{
		"without Accept":          "GET /events?user=42 HTTP/1.1\r\nHost: h\r\n\r\n",
		"HTTP/1.0":                "GET /events?user=42 HTTP/1.0\r\n\r\n",
		"an absolute URL":         "GET http://h/events?user=42 HTTP/1.1\r\nHost: h\r\n\r\n",
		"unknown parameters":      "GET /events?user=42&_=1&utm_source=x HTTP/1.1\r\nHost: h\r\n\r\n",
		"a body":                  "GET /events?user=42 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
		"a long query":            "GET /events?user=42&topic=&topic=" + strings.Repeat("x", 10_000) + " HTTP/1.1\r\nHost: h\r\n\r\n",
		"a thousand topics":       "GET /events?user=42&topic=" + strings.Repeat("&topic=t", 1000) + " HTTP/1.1\r\nHost: h\r\n\r\n",
		"pipelined requests":      strings.Repeat("GET /events?user=42 HTTP/1.1\r\nHost: h\r\n\r\n", 2),
		"the stream's own origin": "GET /events?user=42 HTTP/1.1\r\nHost: h:1\r\nOrigin: http://h:1\r\nSec-Fetch-Site: same-origin\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			conn := hubtest.Dial(t, h.PublicAddr())
			io.WriteString(conn, request)
			r := bufio.NewReader(conn)
			head, err := http.ReadResponse(r, nil)
			if err != nil || head.StatusCode != 200 {
				t.Fatalf("%+v, %v", head, err)
			}
			if got := head.Header.Get("Content-Type"); got != "text/event-stream" {
				t.Errorf("content type %q", got)
			}
			p := &ssetest.Stream{Conn: conn, Response: head}
			p.Source(r)
			if _, fires, err := p.Block(); fires || err != nil || p.LastID == "" {
				t.Fatalf("no opening block: %v", err)
			}
			app.Publish(t, "user-42", name)
			p.Want(t, name)
		})
	}
}

// The hub responds to a request that is too large or not valid HTTP with an error, and closes the connection.
func TestInvalidHTTPClosesTheConnection(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		for name, test := range map[string]struct {
			request string
			code    int
		}{
			"a huge query":    {"GET /events?user=" + strings.Repeat("u", 1<<20) + " HTTP/1.1\r\nHost: h\r\n\r\n", 431},
			"a huge header":   {"GET /events?user=42 HTTP/1.1\r\nHost: h\r\nCookie: " + strings.Repeat("c", 1<<20) + "\r\n\r\n", 431},
			"endless headers": {"GET /events?user=42 HTTP/1.1\r\nHost: h\r\n" + strings.Repeat("X-A: b\r\n", 1<<16) + "\r\n", 431},
			"no HTTP":         {"SSH-2.0-OpenSSH_9.2\r\n\r\n", 400},
			"no Host":         {"GET /events?user=42 HTTP/1.1\r\n\r\n", 400},
			"a bad header":    {"GET /events?user=42 HTTP/1.1\r\nHost: h\r\nX Y: z\r\n\r\n", 400},
			"a NUL":           {"GET /events?user=\x00 HTTP/1.1\r\nHost: h\r\n\r\n", 400},
		} {
			t.Run(name, func(t *testing.T) {
				conn := hubtest.Dial(t, h.PublicAddr())
				go io.WriteString(conn, test.request) // the hub may close the connection before the end
				head, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				if head.StatusCode != test.code {
					t.Errorf("response %s, want %d", head.Status, test.code)
				}
			})
		}
	})
}

// A client that sends its request slowly (slow loris) holds a file descriptor only for a short time.
func TestSlowRequestIsClosed(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.New(t, server.URL(), writer)
		public, admin := h.Servers()
		for _, s := range []*http.Server{public, admin} {
			if s.ReadHeaderTimeout <= 0 || s.ReadHeaderTimeout > 15*time.Second || s.WriteTimeout != 0 {
				t.Errorf("read header timeout %v, write timeout %v", s.ReadHeaderTimeout, s.WriteTimeout)
			}
			s.ReadHeaderTimeout = 200 * time.Millisecond // shorter than in production, to keep the test fast
		}
		hubtest.Run(t, h).AwaitSubscription(t, 1)
		for name, addr := range map[string]string{"public": h.PublicAddr(), "admin": h.AdminAddr()} {
			for _, begin := range []string{"", "GET", "GET /events?user=42 HTTP/1.1\r\nHost: h\r\n", "PRI * HTTP/2.0\r\n\r\nS"} {
				t.Run(fmt.Sprintf("%s %.3s", name, begin), func(t *testing.T) {
					conn := hubtest.Dial(t, addr)
					start := time.Now()
					if _, err := io.WriteString(conn, begin); err != nil {
						t.Fatal(err)
					}
					dribble := time.NewTicker(50 * time.Millisecond)
					defer dribble.Stop()
					cut := make(chan error, 1)
					go func() {
						_, err := io.Copy(io.Discard, conn)
						cut <- err
					}()
					for {
						select {
						case <-cut:
							if d := time.Since(start); d > 5*time.Second {
								t.Errorf("connection closed after %v", d)
							}
							return
						case <-dribble.C:
							io.WriteString(conn, "X")
						}
					}
				})
			}
		}
	})
}

// A request body that is never sent must not hold a file descriptor forever: net/http reads the
// rest of a body before it closes a connection.
func TestHubDoesNotWaitForAMissingBody(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		h := hubtest.New(t, redistest.Start(t).URL(), writer)
		public, _ := h.Servers()
		if timeout := public.ReadTimeout; timeout <= 0 || timeout > 30*time.Second {
			t.Errorf("the public listener waits %v for a request", timeout)
		}
		public.ReadTimeout = 500 * time.Millisecond
		h = hubtest.Run(t, h)
		for _, request := range []string{"POST /events", "GET /events", "GET /nothing"} {
			conn, err := net.Dial("tcp", h.PublicAddr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: hub\r\nContent-Length: 100\r\n\r\n", request)
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, conn); err != nil {
				t.Errorf("%s: %v; want the connection closed", request, err)
			}
		}
	})
}
