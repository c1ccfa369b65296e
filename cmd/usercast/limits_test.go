package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
)

func TestClosedBrowserIsGoneAtOnce(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := startHub(t, server, writer, "--ping-interval", "10m") // at a ping it would show at last
		for name, leave := range map[string]func(*net.TCPConn) error{
			"closed":      (*net.TCPConn).Close,
			"half-closed": (*net.TCPConn).CloseWrite,
			"reset": func(c *net.TCPConn) error {
				c.SetLinger(0)
				return c.Close()
			},
		} {
			t.Run(name, func(t *testing.T) {
				pages := h.openPages(t, 10, func(int) string { return "user=42" })
				closed := h.scrape(t).with("usercast_disconnects_total", "closed")
				for _, p := range pages[:4] {
					if err := leave(p.conn.(*net.TCPConn)); err != nil {
						t.Fatal(err)
					}
				}
				h.wantMetrics(t, map[string]float64{
					"usercast_clients": 6, "usercast_users": 1,
					"usercast_disconnects_total" + reasonLabel("closed"): closed + 4,
				})
				for _, p := range pages {
					p.close()
				}
				h.wantMetrics(t, map[string]float64{"usercast_clients": 0, "usercast_users": 0})
			})
		}
	})
}

func TestQuietStreamIsPinged(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		t.Parallel() // mostly waits
		server := redistest.Start(t)
		h := startHub(t, server, writer, "--ping-interval", "200ms")
		app := newPublisher(t, server.Addr())
		p := h.openPage(t, "user=42")
		seen := h.openPage(t, "user=42&ping=event")
		seen.wantEvent(t, "ping", "{}")
		if p.block(); p.comments != 2 { // the opening block begins with one
			t.Error("a quiet stream gets no comment")
		}
		// The position moves on with what others got.
		before := p.lastID
		app.publish(t, "user-7", "for somebody else")
		eventually(t, "the position is told", func() bool {
			e, fires, err := p.block()
			if fires || err != nil {
				t.Fatalf("got %+v, %v", e, err)
			}
			return p.lastID != before
		})
		// From there nothing is missing.
		back := h.openPage(t, "user=42", "Last-Event-ID: "+p.lastID)
		app.publish(t, "user-42", "hello")
		back.want(t, "hello")
	})
}

func TestMaxAgeEndsAStreamCleanly(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		t.Parallel() // mostly waits
		server := redistest.Start(t)
		h := startHub(t, server, writer, "--max-age", "500ms", "--retry", "2s")
		start := time.Now()
		for range 3 {
			p := h.openPage(t, "user=42")
			p.retry = 0
			p.wantEvent(t, "bye", `{"reason":"max_age"}`)
			p.wantEnd(t)
			if age := time.Since(start); age < 400*time.Millisecond {
				t.Errorf("ended after %v, want 500 ms ± 20 %%", age)
			}
			if p.retry < time.Second || p.retry > 3*time.Second {
				t.Errorf("retry %v, want 2 s ± 50 %%", p.retry)
			}
			start = time.Now()
		}
		if s := h.Hub().Stats(); s.Disconnects[hub.ReasonMaxAge] != 3 {
			t.Errorf("disconnects: %v, want 3 of max_age", s.Disconnects)
		}
	})
}

// A browser is told "not now" inside a stream, since an error status would end
// its EventSource for good; anybody else gets a status.
func TestRefusals(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		for _, test := range []struct {
			flag, reason string
			code         int
		}{
			{"--max-clients", "clients", 503},
			{"--max-clients-per-user", "user-limit", 429},
		} {
			t.Run(test.reason, func(t *testing.T) {
				server := redistest.Start(t)
				h := startHub(t, server, writer, test.flag, "2", "--retry", "2s")
				first := h.openPage(t, "user=42")
				h.openPage(t, "user=42")
				h.refuses(t, test.reason, test.code)
				if test.reason == "user-limit" {
					h.openPage(t, "user=7")
				}
				h.wantMetrics(t, map[string]float64{"usercast_rejects_total" + reasonLabel(test.reason): 3, "usercast_rejects_total": 3})
				first.close()
				eventually(t, "there is room", func() bool { return h.Hub().Stats().Disconnects[hub.ReasonClosed] == 1 })
				p := h.openPage(t, "user=42")
				newPublisher(t, server.Addr()).publish(t, "user-42", "hello")
				p.want(t, "hello")
			})
		}
		t.Run("off", func(t *testing.T) {
			server := redistest.Start(t)
			h := startHub(t, server, writer, "--max-clients", "0", "--max-clients-per-user", "0")
			h.openPages(t, 100, func(int) string { return "user=42" })
		})
	})
}

// refuses wants user 42 to be refused: once a browser, twice somebody else. The
// flag --retry is 2s.
func (h *liveHub) refuses(t *testing.T, reason string, code int) {
	t.Helper()
	p, err := dialPage(h.PublicAddr(), "user=42")
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if p.head.StatusCode != 200 || p.head.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("a browser is refused with %s, %v", p.head.Status, p.head.Header)
	}
	p.wantEvent(t, "busy", `{"reason":"`+reason+`"}`)
	p.wantEnd(t)
	if p.retry < 5*time.Second || p.retry > 15*time.Second {
		t.Errorf("retry %v, want 10 s ± 50 %%", p.retry)
	}
	if p.lastID != "" {
		t.Errorf("a refusal moves the page's position to %s", p.lastID)
	}
	for _, accept := range []string{"*/*", "application/json"} {
		a := ask(t, "GET", h.public("/events?user=42"), "Accept: "+accept)
		if a.code != code {
			t.Errorf("Accept %s is refused with %d, want %d", accept, a.code, code)
		}
		if s, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || s < 5 || s > 15 {
			t.Errorf("Retry-After: %q, want 5 to 15 seconds", a.header.Get("Retry-After"))
		}
		if !strings.HasPrefix(a.body, `{"error":"`) {
			t.Errorf("body %q", a.body)
		}
	}
}

func TestStreamsHead(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server, "--retry", "2s", "--allow-origin", "https://app.example")
	retries := map[time.Duration]bool{}
	for range 20 {
		p := h.openPage(t, "user=42", "Origin: https://app.example")
		for name, want := range map[string]string{
			"Content-Type":                     "text/event-stream",
			"Cache-Control":                    "no-cache, no-store, no-transform",
			"X-Accel-Buffering":                "no",
			"X-Content-Type-Options":           "nosniff",
			"Access-Control-Allow-Origin":      "https://app.example",
			"Access-Control-Allow-Credentials": "true",
			"Vary":                             "Origin",
		} {
			if got := p.head.Header.Values(name); fmt.Sprint(got) != fmt.Sprint([]string{want}) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if p.retry < time.Second || p.retry > 3*time.Second {
			t.Errorf("retry %v, want 2 s ± 50 %%", p.retry)
		}
		retries[p.retry] = true
	}
	if len(retries) < 10 {
		t.Errorf("20 clients come back at %d different times", len(retries))
	}
}
