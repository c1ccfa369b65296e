package stream

import (
	"fmt"
	"net"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

func TestClosedBrowserIsDetectedImmediately(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--ping-interval", "10m") // the next ping would detect a closed connection
		for name, leave := range map[string]func(*net.TCPConn) error{
			"closed":      (*net.TCPConn).Close,
			"half-closed": (*net.TCPConn).CloseWrite,
			"reset": func(c *net.TCPConn) error {
				c.SetLinger(0)
				return c.Close()
			},
		} {
			t.Run(name, func(t *testing.T) {
				pages := h.OpenMany(t, 10, func(int) string { return "user=42" })
				closed := h.Scrape(t).ByReason("usercast_disconnects_total", "closed")
				for _, p := range pages[:4] {
					if err := leave(p.Conn.(*net.TCPConn)); err != nil {
						t.Fatal(err)
					}
				}
				h.WantMetrics(t, map[string]float64{
					"usercast_clients": 6, "usercast_users": 1,
					"usercast_disconnects_total" + hubtest.Reason("closed"): closed + 4,
				})
				for _, p := range pages {
					p.Close()
				}
				h.WantMetrics(t, map[string]float64{"usercast_clients": 0, "usercast_users": 0})
			})
		}
	})
}

func TestIdleStreamReceivesPings(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--ping-interval", "200ms")
		app := hubtest.NewPublisher(t, server.Addr())
		p := h.Open(t, "user=42")
		seen := h.Open(t, "user=42&ping=event")
		seen.WantEvent(t, "ping", "{}")
		for p.Comments < 2 { // the opening block starts with a comment; a ping after a new marker is an event
			if _, _, err := p.Block(); err != nil {
				t.Fatalf("an idle stream receives no comment: %v", err)
			}
		}
		// Messages to other users advance the position.
		before := p.LastID
		app.Publish(t, "user-7", "for another user")
		hubtest.Eventually(t, "the position is sent", func() bool {
			e, fires, err := p.Block()
			if fires || err != nil {
				t.Fatalf("received %+v, %v", e, err)
			}
			return p.LastID != before
		})
		// After resuming from this position, no message is missing.
		back := h.Open(t, "user=42", "Last-Event-ID: "+p.LastID)
		app.Publish(t, "user-42", "hello")
		back.Want(t, "hello")
	})
}

func TestMaxAgeEndsAStreamCleanly(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--max-age", "500ms", "--retry", "2s")
		start := time.Now()
		for range 3 {
			p := h.Open(t, "user=42")
			p.Retry = 0
			p.WantEvent(t, "bye", `{"reason":"max_age"}`)
			p.WantEnd(t)
			if age := time.Since(start); age < 400*time.Millisecond {
				t.Errorf("ended after %v, want 500 ms ± 20 %%", age)
			}
			if p.Retry < time.Second || p.Retry > 3*time.Second {
				t.Errorf("retry %v, want 2 s ± 50 %%", p.Retry)
			}
			start = time.Now()
		}
		if s := h.Hub().Stats(); s.Disconnects[hub.ReasonMaxAge] != 3 {
			t.Errorf("disconnects: %v, want 3 of max_age", s.Disconnects)
		}
	})
}

// A temporary rejection of a browser is an event in a stream, because an error status would close
// its EventSource permanently. Other clients receive a status.
func TestTemporaryRejections(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		for _, test := range []struct {
			flag, reason string
			code         int
		}{
			{"--max-clients", "clients", 503},
			{"--max-clients-per-user", "user-limit", 429},
		} {
			t.Run(test.reason, func(t *testing.T) {
				server := redistest.Start(t)
				h := hubtest.Start(t, server, writer, test.flag, "2", "--retry", "2s")
				first := h.Open(t, "user=42")
				h.Open(t, "user=42")
				h.WantRejection(t, test.reason, test.code)
				if test.reason == "user-limit" {
					h.Open(t, "user=7")
				}
				h.WantMetrics(t, map[string]float64{"usercast_rejects_total" + hubtest.Reason(test.reason): 3, "usercast_rejects_total": 3})
				first.Close()
				hubtest.Eventually(t, "the first stream has ended", func() bool { return h.Hub().Stats().Disconnects[hub.ReasonClosed] == 1 })
				p := h.Open(t, "user=42")
				hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "hello")
				p.Want(t, "hello")
			})
		}
		t.Run("off", func(t *testing.T) {
			server := redistest.Start(t)
			h := hubtest.Start(t, server, writer, "--max-clients", "0", "--max-clients-per-user", "0")
			h.OpenMany(t, 100, func(int) string { return "user=42" })
		})
	})
}

func TestStreamResponseHeaders(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--retry", "2s", "--allow-origin", "https://app.example")
	retries := map[time.Duration]bool{}
	for range 20 {
		p := h.Open(t, "user=42", "Origin: https://app.example")
		for name, want := range map[string]string{
			"Content-Type":                     "text/event-stream",
			"Cache-Control":                    "no-cache, no-store, no-transform",
			"X-Accel-Buffering":                "no",
			"X-Content-Type-Options":           "nosniff",
			"Access-Control-Allow-Origin":      "https://app.example",
			"Access-Control-Allow-Credentials": "true",
			"Vary":                             "Origin",
		} {
			if got := p.Response.Header.Values(name); fmt.Sprint(got) != fmt.Sprint([]string{want}) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if p.Retry < time.Second || p.Retry > 3*time.Second {
			t.Errorf("retry %v, want 2 s ± 50 %%", p.Retry)
		}
		retries[p.Retry] = true
	}
	if len(retries) < 10 {
		t.Errorf("20 clients reconnect at only %d different times", len(retries))
	}
}
