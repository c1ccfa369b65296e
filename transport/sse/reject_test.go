package sse_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

// An EventSource stops permanently at any status except 200, so it receives temporary rejections inside
// a stream that ends. Other clients receive an error status.
func TestTemporaryRejections(t *testing.T) {
	unavailable := func(*http.Request) (auth.Identity, error) {
		return auth.Identity{}, errors.New("the app does not respond")
	}
	tests := []struct {
		reason string
		status int // for clients that are not a browser
		config config
		before func(*testServer)
	}{
		{"clients", 503, config{hub: hub.Config{MaxClients: 1}}, nil},
		{"user-limit", 429, config{hub: hub.Config{MaxClientsPerUser: 1}}, nil},
		{"draining", 503, config{}, func(s *testServer) { s.hub.Refuse() }},
		{"auth-unavailable", 503, config{sse: sse.Config{Authenticate: unavailable}}, nil},
	}
	for _, test := range tests {
		t.Run(test.reason, func(t *testing.T) {
			test.config.sse.Retry = 2 * time.Second
			s := newTestServer(t, test.config)
			if limit := test.config.hub; limit.MaxClients+limit.MaxClientsPerUser > 0 {
				c, err := s.hub.Register(hub.Options{User: "42", Consumer: idle{}})
				if err != nil {
					t.Fatal(err)
				}
				defer c.End(hub.ReasonClosed)
			}
			if test.before != nil {
				test.before(s)
			}

			browser := openAndClose(s, "user=42")
			wantStreamHead(t, browser.Code, browser.Header())
			body := browser.Body.String()
			if want := fmt.Sprintf(":\nretry: MS\nevent: busy\ndata: {\"reason\":%q}\n\n", test.reason); plain(body) != want {
				t.Errorf("a browser receives %q, want %q", body, want)
			}
			if _, p := eventstream.Parse(body); p.Retry < 5*time.Second || p.Retry > 15*time.Second {
				t.Errorf("a browser reconnects after %v, want 10 s ± 50 %%", p.Retry)
			}

			other := openAndClose(s, "user=42", "Accept", "-")
			wantError(t, other, test.status)
			if after, err := strconv.Atoi(other.Header().Get("Retry-After")); err != nil || after < 5 || after > 15 {
				t.Errorf("Retry-After: %q", other.Header().Get("Retry-After"))
			}
			if n := s.handler.Stats().Rejects[test.reason]; n != 2 {
				t.Errorf("%d rejects counted as %q", n, test.reason)
			}
			if n := s.hub.Stats().Connects; n > 1 {
				t.Errorf("%d connects", n)
			}
		})
	}
}

type idle struct{}

func (idle) Wake()      {}
func (idle) Interrupt() {}

// wantError checks that a response is an error in JSON with a readable sentence.
func wantError(t *testing.T, r *httptest.ResponseRecorder, status int) {
	t.Helper()
	if r.Code != status {
		t.Errorf("status %d, want %d", r.Code, status)
	}
	if got := r.Header().Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type: %q", got)
	}
	if got := r.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control: %q", got)
	}
	if got := r.Header().Get("X-Content-Type-Options"); got != "nosniff" {
		t.Errorf("X-Content-Type-Options: %q", got)
	}
	var body map[string]string
	if err := json.Unmarshal(r.Body.Bytes(), &body); err != nil || len(body) != 1 || !strings.Contains(body["error"], " ") {
		t.Errorf("body %q, %v", r.Body, err)
	}
	if strings.Contains(r.Body.String(), `\u00`) {
		t.Errorf("body %s is not readable", r.Body)
	}
}

func TestAcceptOfABrowser(t *testing.T) {
	s := newTestServer(t, config{})
	s.hub.Refuse()
	tests := []struct {
		accept  []string
		browser bool
	}{
		{[]string{"text/event-stream"}, true},
		{[]string{"Text/Event-Stream"}, true},
		{[]string{" text/event-stream ; q=0.5"}, true},
		{[]string{"text/event-stream;charset=utf-8"}, true},
		{[]string{"application/json, text/event-stream"}, true},
		{[]string{"application/json", "text/event-stream"}, true},
		{[]string{"*/*, text/event-stream;q=0.1, ;;,"}, true},
		{nil, false},
		{[]string{""}, false},
		{[]string{"*/*"}, false}, // curl and hey need a status
		{[]string{"text/*"}, false},
		{[]string{"text/html"}, false},
		{[]string{"text/event-stream;q=0"}, false},
		{[]string{"text/event-streams"}, false},
		{[]string{"application/x;a=\"text/event-stream\""}, false},
		{[]string{"\x00/,;="}, false},
		{[]string{strings.Repeat(",", 100_000)}, false},
	}
	for _, test := range tests {
		r := httptest.NewRequest(http.MethodGet, "/events?user=42", nil)
		r.Header["Accept"] = test.accept
		want := http.StatusServiceUnavailable
		if test.browser {
			want = http.StatusOK
		}
		if got := answer(s, r).Code; got != want {
			t.Errorf("Accept %.60q: status %d, want %d", test.accept, got, want)
		}
	}
}

// Browsers also receive permanent rejections as an error status, so that they stop.
func TestPermanentRejections(t *testing.T) {
	says := func(user string, err error) config {
		return config{sse: sse.Config{Authenticate: func(*http.Request) (auth.Identity, error) {
			return auth.Identity{User: user}, err
		}}}
	}
	tests := []struct {
		name, query string
		headers     []string
		config      config
		status      int
		reason      string
	}{
		{"no user", "", nil, config{}, 401, "unauthorized"},
		{"bad token", "", nil, says("", fmt.Errorf("token: %w", auth.ErrUnauthorized)), 401, "unauthorized"},
		{"two users", "user=1&user=2", nil, config{}, 400, "bad-request"},
		{"empty user", "user=", nil, config{}, 403, "bad-user"},
		{"broadcast", "user=*", nil, config{}, 403, "bad-user"},
		{"user with a topic", "user=42:a", nil, config{}, 403, "bad-user"},
		{"user of the app", "", nil, says("4:2", nil), 403, "bad-user"},
		{"rejected user", "", nil, says("42", auth.ErrBadUser), 403, "bad-user"},
		{"foreign origin", "user=42", []string{"Origin", "https://evil.example"}, config{}, 403, "origin"},
		{"bad escape", "user=42&topic=%zz", nil, config{}, 400, "bad-request"},
		{"semicolon", "user=42;topic=a", nil, config{}, 400, "bad-request"},
		{"event name", "user=42&event=news", nil, config{}, 400, "bad-request"},
		{"event twice", "user=42&event=topic&event=", nil, config{}, 400, "bad-request"},
		{"ping", "user=42&ping=yes", nil, config{}, 400, "bad-request"},
		{"huge query", "user=42&topic=" + strings.Repeat("x", 1<<20), nil, config{}, 400, "bad-request"},
		{"many topics", "user=42" + strings.Repeat("&topic=", 100_000), nil, config{}, 400, "bad-request"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newTestServer(t, test.config)
			wantError(t, openAndClose(s, test.query, test.headers...), test.status)
			for reason, n := range s.handler.Stats().Rejects {
				if want := map[bool]uint64{true: 1}[reason == test.reason]; n != want {
					t.Errorf("%d rejects counted as %s", n, reason)
				}
			}
			if n := s.hub.Stats().Connects; n != 0 {
				t.Errorf("%d connects", n)
			}
		})
	}
}

func TestMethods(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "DELETE", "HEAD", "PATCH", "TRACE", "OPTIONS", "CONNECT", "get", "BREW"} {
		s := newTestServer(t, config{})
		r := httptest.NewRequest("GET", "/events?user=42", strings.NewReader("body"))
		r.Method = method
		w := answer(s, r)
		wantError(t, w, http.StatusMethodNotAllowed)
		if got := w.Header().Get("Allow"); got != "GET" {
			t.Errorf("%s: Allow: %q", method, got)
		}
		if n := s.handler.Stats().Rejects["bad-request"]; n != 1 {
			t.Errorf("%s: %d rejects", method, n)
		}
	}
}

// Each reason is exported from the start, so that rate() works for the first rejection.
func TestRejectReasonsAreTheContracts(t *testing.T) {
	var got []string
	for reason, n := range newTestServer(t, config{}).handler.Stats().Rejects {
		got = append(got, reason)
		if n != 0 {
			t.Errorf("%s: %d", reason, n)
		}
	}
	want := strings.Split("clients|user-limit|draining|auth-unavailable|unknown-key|expired|unauthorized|origin|topic|bad-user|bad-request", "|")
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("reasons %q, want %q", got, want)
	}
}

// The body of a request is read up to a limit and discarded. A larger or incomplete body is a bad
// request.
func TestRequestBody(t *testing.T) {
	for name, test := range map[string]struct {
		length, sent int
		want         string // how the response begins
	}{
		"none":       {0, 0, "HTTP/1.1 200 "},
		"small":      {4 << 10, 4 << 10, "HTTP/1.1 200 "},
		"large":      {4<<10 + 1, 4<<10 + 1, "HTTP/1.1 400 "},
		"incomplete": {10, 9, "HTTP/1.1 400 "},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, config{readTimeout: 15 * time.Second}, func(t *testing.T, s *testServer, l *pipeListener) {
				p := open(t, l.dial(), request("user=42", fmt.Sprint("Content-Length: ", test.length))+strings.Repeat("x", test.sent))
				time.Sleep(16 * time.Second)
				if got, ended := finished(p); !strings.HasPrefix(got, test.want) || ended != strings.Contains(test.want, "400") {
					t.Errorf("got %q, end: %v; want %q", got, ended, test.want)
				}
			})
		})
	}
}
