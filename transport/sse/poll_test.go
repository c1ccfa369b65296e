package sse_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/internal/eventstream"
)

// A long poll without a message ends after 20 s, with a ping at the end if the position has changed.
func TestPollEndsAfterItsTime(t *testing.T) {
	for name, test := range map[string]struct {
		query, publish, want string
		wait                 time.Duration
	}{
		"nothing happened":       {"", "", ":\n", 20 * time.Second},
		"for another user":       {"", "7", "event: ping\ndata: {}\nid: BOOT-1\n\n", 20 * time.Second},
		"at the last moment":     {"", "late", ":\nevent: ping\ndata: {}\nid: BOOT-1\n\n", 20 * time.Second},
		"pings as events":        {"&ping=event", "", "event: ping\ndata: {}\nid: BOOT-0\n\n", 20 * time.Second},
		"a message for the user": {"", "42", "data: x\nid: BOOT-1\n\n", 0},
	} {
		t.Run(name, func(t *testing.T) {
			c := config{}
			c.sse.PingInterval = 15 * time.Second
			bubble(t, c, func(t *testing.T, s *testServer, l *pipeListener) {
				begun := time.Now()
				p := open(t, l.dial(), request("user=42&poll=1"+test.query))
				n := p.size()
				head, _ := p.text()
				_, body, _ := strings.Cut(head, "\r\n\r\n")
				if _, parser := eventstream.Parse(body); parser.Retry < 300*time.Millisecond || parser.Retry > time.Second {
					t.Errorf("it reconnects after %v", parser.Retry)
				}
				switch test.publish {
				case "late":
					time.Sleep(19 * time.Second)
					s.hub.Publish(hub.User("7"), "", "x")
				case "":
				default:
					s.hub.Publish(hub.User(test.publish), "", "x")
				}
				s.wantEnd(hub.ReasonPoll)
				if took := time.Since(begun); took < test.wait || took > test.wait+time.Second {
					t.Errorf("it ends after %v", took)
				}
				if got := p.since(n); got != test.want {
					t.Errorf("got %q, want %q", got, test.want)
				}
				if _, eof := p.text(); !eof {
					t.Error("it is still open")
				}
			})
		})
	}
}

// A long poll does not end before its replay is complete, and sends all queued messages.
func TestPollEndsWithItsWholeReplay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var query *hub.Query
		l := newPipeListener()
		s := serve(t, config{listener: l, hub: hub.Config{HistoryBytes: 1 << 20}, query: func(q *hub.Query) { query = q }})
		s.feed.Load(hub.ID{Ms: 4}, hub.ID{Ms: 4}, func(func(hub.Recipient, hub.Entry) bool) {})
		entry := func(ms uint64) hub.Entry { return hub.Entry{ID: hub.ID{Ms: ms}, Payload: "x"} }
		p := open(t, l.dial(), request("user=42&poll=1&last-event-id=1-0"))
		n := p.size()
		s.feed.Append(hub.User("42"), entry(5))
		query.Answer([]hub.Entry{entry(2)}, hub.ID{Ms: 2}, 0) // the first part
		if got, want := p.since(n), "data: x\nid: 2-0\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if ended := s.ended(); ended != "" {
			t.Errorf("it has ended as %s", ended)
		}
		query.Answer([]hub.Entry{entry(3)}, hub.ID{Ms: 4}, 0)
		s.wantEnd(hub.ReasonPoll)
		if got, want := p.since(n), "data: x\nid: 2-0\n\ndata: x\nid: 3-0\n\ndata: x\nid: 5-0\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// The bye and busy events of a long poll are the same as those of any stream.
func TestPollIsEndedForAnotherReason(t *testing.T) {
	c := config{}
	c.sse.Retry = 10 * time.Second
	bubble(t, c, func(t *testing.T, s *testServer, l *pipeListener) {
		p := open(t, l.dial(), request("user=42&poll=1"))
		n := p.size()
		s.hub.Finish(hub.ReasonDrain, 0)
		if got, want := p.since(n), "retry: MS\nevent: bye\ndata: {\"reason\":\"draining\"}\nid: BOOT-0\n\n"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		text, _ := p.text()
		if _, parser := eventstream.Parse(text[n:]); parser.Retry < 5*time.Second {
			t.Errorf("retry %v", parser.Retry)
		}
		s.wantEnd(hub.ReasonDrain)
		if code := openAndClose(s, "user=42&poll=2").Code; code != 400 {
			t.Errorf("poll=2 is answered with %d", code)
		}
	})
}
