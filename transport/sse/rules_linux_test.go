package sse_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/internal/eventstream"
)

// The tests in this file are named after the rules of the markers, which docs/decisions lists.

var ruleHistory = hub.Config{HistoryPerUser: 1000, HistoryAge: time.Hour, HistoryBytes: 1 << 20}

// The opening block repeats the client's id, whatever follows. A page whose connection breaks after it resumes from
// its own id, and is told about everything that it has missed.
func TestR8OpeningRepeatsTheClientsID(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		id   func(s *testServer) string // of the client; afterwards, a message is published
		want string                     // the event behind the opening block
	}{
		"of this hub": {func(s *testServer) string { return s.position("42") }, "message missed"},
		"of a gap":    {func(s *testServer) string { s.hub.GapForAll(hub.GapRedisReconnect); return s.position("42") }, "message missed"},
		"older than the history": {func(s *testServer) string {
			defer s.hub.Publish("42", "", "dropped")
			return s.position("42")
		}, `gap {"reason":"history-expired"}`},
		"of another hub":     {func(*testServer) string { return "abcdefghijklm-7" }, `gap {"reason":"unknown-id"}`},
		"with a foreign gap": {func(*testServer) string { return "abcdefghijklm-7.nopqrstu.1" }, `gap {"reason":"unknown-id"}`},
		"too far":            {func(s *testServer) string { return s.hub.Boot() + "-18446744073709551615" }, `gap {"reason":"unknown-id"}`},
		"malformed":          {func(*testServer) string { return "-._" }, `gap {"reason":"unknown-id"}`},
		"not writable":       {func(*testServer) string { return "a b" }, `gap {"reason":"unknown-id"}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config{hub: ruleHistory, replaysAreLost: true}
			c.hub.HistoryPerUser = 1
			eachTransport(t, c, func(t *testing.T, s *testServer, tr transport) {
				id := test.id(s)
				s.position("42") // begins the history
				s.hub.Publish("42", "", "missed")
				want := strings.Replace(id, "a b", "unknown", 1)
				for range 2 { // as if the connection had broken after the first opening block
					v := tr.visit(t, s, "Last-Event-ID: "+id)
					e, _, err := eventstream.NewReader(v.body()).Block()
					if err != nil || e.Type != "ping" || e.ID != want {
						t.Fatalf("the opening block is %+v, %v; want the id %q", e, err, want)
					}
					v.leave(true)
					id = e.ID
				}
				page := eventstream.NewReader(tr.visit(t, s, "Last-Event-ID: "+id).body())
				page.Block()
				if e, err := page.Next(); e.Type+" "+e.Data != test.want || err != nil {
					t.Errorf("then %+v, %v; want %s", e, err, test.want)
				}
			})
		})
	}
}

// position returns the position of a new stream of a user, which it ends.
func (s *testServer) position(user string) string {
	client, err := s.hub.Register(hub.Options{User: user, Consumer: idle{}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer client.End(hub.ReasonClosed)
	return string(s.hub.AppendID(nil, client.Opening()))
}

// A long poll ends after its whole replay and everything that is queued by then: a page that is far behind would
// otherwise need one request per message, and never catch up.
func TestR23PollSendsItsWholeReplay(t *testing.T) {
	const missed, queued = 300, 20 // the replay is taken in parts
	bubble(t, config{hub: ruleHistory}, func(t *testing.T, s *testServer, l *pipeListener) {
		id := s.position("42")
		for i := range missed {
			s.hub.Publish("42", "", fmt.Sprint(i))
		}
		p := ask(t, l.dial(), request("user=42&poll=1", "Last-Event-ID: "+id))
		p.head()
		synctest.Wait() // the writer waits with the first part
		for i := range queued {
			s.hub.Publish("42", "", fmt.Sprint(missed+i))
		}
		go p.readAll()
		text := p.since(0)
		for i, e := range parsePoll(text) {
			if e.Data != fmt.Sprint(i) {
				t.Fatalf("event %d is %+v", i, e)
			}
		}
		if n := len(parsePoll(text)); n != missed+queued {
			t.Errorf("%d messages, want %d", n, missed+queued)
		}
		s.wantEnd(hub.ReasonPoll)
	})
}

func parsePoll(text string) []eventstream.Event {
	events, _ := eventstream.Parse(text)
	return events
}
