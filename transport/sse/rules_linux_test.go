package sse_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

// The tests in this file are named after the rules of the markers, which docs/decisions lists.

var ruleHistory = hub.Config{HistoryPerUser: 1000, HistoryAge: time.Hour, HistoryBytes: 1 << 20}

// The opening block repeats the client's id, whatever follows. A page whose connection breaks after it resumes from
// its own id, and receives everything that it has missed, or a gap.
func TestR8OpeningRepeatsTheClientsID(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		id   func(s *testServer) string // of the client; afterwards, a message is published
		want string                     // the event behind the opening block
	}{
		"of this hub": {func(s *testServer) string { return s.position("42") }, "message missed"},
		"of a gap":    {func(s *testServer) string { s.hub.GapForAll(hub.GapRedisReconnect); return s.position("42") }, "message missed"},
		"older than the history": {func(s *testServer) string {
			defer s.hub.Publish(hub.User("42"), "", "dropped")
			return s.position("42")
		}, `gap {"reason":"history-expired"}`},
		"by an older marker": {func(s *testServer) string {
			s.hub.Mark(hub.NewMarkerName())
			defer s.hub.Mark(hub.NewMarkerName())
			return s.position("42")
		}, "message missed"},
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
				s.hub.Publish(hub.User("42"), "", "missed")
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

// A newer marker is a new position, although nothing was published.
func TestR17NewMarkerIsAPing(t *testing.T) {
	names := [3]hub.MarkerName{hub.NewMarkerName(), hub.NewMarkerName(), hub.NewMarkerName()}
	for query, repeats := range map[string]bool{"": false, "&ping=event": true} {
		t.Run(query, func(t *testing.T) {
			bubble(t, config{sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
				s.hub.Mark(names[0])
				p := open(t, l.dial(), request("user=42"+query))
				n := p.size()
				want := func(id string, isNew bool) {
					t.Helper()
					time.Sleep(ping)
					block := ":\n"
					if isNew || repeats {
						block = "event: ping\ndata: {}\nid: " + id + "\n\n"
					}
					if got := p.since(n); got != block {
						t.Errorf("got %q, want %q", got, block)
					}
					n = p.size()
				}
				id := names[0].String() + "-0"
				want(id, false)
				s.hub.Mark(names[1])
				id = names[1].String() + "-0"
				want(id, true)
				want(id, false)
				s.hub.Publish(hub.User("7"), "", "")
				id = names[1].String() + "-1"
				want(id, true)
				s.hub.Publish(hub.User("7"), "", "")
				s.hub.Mark(names[2])
				id = names[2].String() + "-0"
				want(id, true)
				want(id, false)
			})
		})
	}
}

// A stream that has resumed at the newest position receives no ping with the same id. The text counts: the same place by
// an older marker is another id.
func TestR17SameTextIsNoNewPosition(t *testing.T) {
	bubble(t, config{hub: ruleHistory, sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
		older, newer := hub.NewMarkerName(), hub.NewMarkerName()
		s.hub.Mark(older)
		s.hub.Publish(hub.User("7"), "", "")
		s.hub.Mark(newer)
		for id, want := range map[string]string{
			newer.String() + "-0": ":\n",
			older.String() + "-1": "event: ping\ndata: {}\nid: " + newer.String() + "-0\n\n",
		} {
			p := open(t, l.dial(), request("user=42", "Last-Event-ID: "+id))
			n := p.size()
			time.Sleep(ping)
			if got := p.since(n); got != want {
				t.Errorf("%s: got %q, want %q", id, got, want)
			}
			n = p.size()
			time.Sleep(ping)
			if got := p.since(n); got != ":\n" {
				t.Errorf("%s: then got %q, want a comment", id, got)
			}
			p.conn.Close()
		}
	})
}

// Until the place of a client is known, it receives nothing but its opening block, and pings with its own id.
func TestR17NoOtherIDWhileThePlaceIsUnknown(t *testing.T) {
	for query, want := range map[string]string{"": ":\n", "&ping=event": "event: ping\ndata: {}\nid: OWN\n\n"} {
		t.Run(query, func(t *testing.T) {
			bubble(t, config{hub: ruleHistory, sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
				s.hub.AwaitPlaces(func() {})
				s.hub.Mark(hub.NewMarkerName())
				marker := hub.NewMarkerName()
				own := marker.String() + "-1"
				p := open(t, l.dial(), request("user=42"+query, "Last-Event-ID: "+own))
				n := p.size()
				for range 2 {
					s.hub.Publish(hub.User("42"), "", "before")
					time.Sleep(ping)
				}
				if got, want := p.since(n), strings.Repeat(strings.Replace(want, "OWN", own, 1), 2); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				n = p.size()
				s.hub.Mark(marker)
				s.hub.Publish(hub.User("42"), "", "has it")
				s.hub.Publish(hub.User("42"), "", "next")
				if ticket := s.hub.Waiting(); ticket != 0 {
					s.hub.Received(ticket)
				}
				if got, want := p.since(n), "data: next\nid: "+marker.String()+"-2\n\n"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}

// No ping has an id while a gap is queued that waits for its turn. The gap carries the position at which it is written;
// before a message it carries its own.
func TestR17WaitingGapHasTheIDOfItsMoment(t *testing.T) {
	const spread = 3 * time.Second
	for name, test := range map[string]struct {
		message bool // to the stream, while the gap waits
		after   int  // messages to another user between gap and writing
	}{"quiet": {false, 2}, "nothing happens": {false, 0}, "before a message": {true, 2}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, config{hub: hub.Config{GapSpread: spread}, sse: sse.Config{PingInterval: ping}}, func(t *testing.T, s *testServer, l *pipeListener) {
				marker, newer := hub.NewMarkerName(), hub.NewMarkerName()
				s.hub.Begin()
				s.hub.Mark(marker)
				pages := make([]*peer, 300) // they receive a spread gap over three seconds
				sizes := make([]int, len(pages))
				for i := range pages {
					pages[i] = open(t, l.dial(), request(fmt.Sprint("user=", i)))
				}
				for i, p := range pages {
					sizes[i] = p.size()
				}
				s.hub.GapForAll(hub.GapRedisReconnect)
				gap := "event: gap\ndata: {\"reason\":\"redis-reconnect\"}\nid: "
				own, moved := gap+marker.String()+"-0.BOOT.", gap+newer.String()+"-0\n\n"
				for range test.after {
					s.hub.Publish(hub.User("nobody"), "", "")
				}
				if test.after > 0 {
					s.hub.Mark(newer)
				} else {
					moved = own
				}
				if test.message {
					for i := range pages {
						s.hub.Publish(hub.User(fmt.Sprint(i)), "", "x")
					}
					moved = own
				}
				time.Sleep(spread + time.Second)
				for i, p := range pages {
					if got := p.since(sizes[i]); !strings.HasPrefix(got, moved) || strings.Count(got, "event: gap") != 1 {
						t.Fatalf("page %d got %q, want a gap as %q", i, got, moved)
					}
				}
			})
		})
	}
}

// The bye event carries the position at which the stream has left the fan-out: nothing that was published later counts,
// even if bye is written much later. A gap that is due goes first. A client whose place is not known keeps its own id.
func TestR18ByeIsWhereTheStreamLeft(t *testing.T) {
	const bye = "retry: MS\nevent: bye\ndata: {\"reason\":\"draining\"}\nid: "
	marker, late := hub.NewMarkerName(), hub.NewMarkerName()
	tests := map[string]struct {
		own    string            // id of the client
		before func(*hub.PubSub) // while the first write waits for its reader
		want   func(h *hub.PubSub) string
	}{
		"quiet": {before: func(*hub.PubSub) {}, want: func(*hub.PubSub) string { return bye + marker.String() + "-1\n\n" }},
		"queued": {before: func(h *hub.PubSub) { h.Publish(hub.User("42"), "", "queued"); h.Publish(hub.User("7"), "", "") }, want: func(*hub.PubSub) string {
			return "data: queued\nid: " + marker.String() + "-2\n\n" + bye + marker.String() + "-3\n\n"
		}},
		"newest marker": {before: func(h *hub.PubSub) { h.Publish(hub.User("7"), "", ""); h.Mark(late) }, want: func(*hub.PubSub) string { return bye + late.String() + "-0\n\n" }},
		"gap that waits": {before: func(h *hub.PubSub) { h.GapForAll(hub.GapRedisReconnect); h.Publish(hub.User("7"), "", "") }, want: func(h *hub.PubSub) string {
			return "event: gap\ndata: {\"reason\":\"redis-reconnect\"}\nid: " + marker.String() + "-2\n\n" + bye + marker.String() + "-2\n\n"
		}},
		"unknown place": {own: late.String() + "-3", before: func(*hub.PubSub) {}, want: func(*hub.PubSub) string { return bye + late.String() + "-3\n\n" }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := config{hub: ruleHistory}
			c.hub.GapSpread = time.Minute
			bubble(t, c, func(t *testing.T, s *testServer, l *pipeListener) {
				s.hub.AwaitPlaces(func() {})
				s.hub.Mark(marker)
				var headers []string
				if test.own != "" {
					headers = append(headers, "Last-Event-ID: "+test.own)
				}
				p := ask(t, l.dial(), request("user=42", headers...))
				p.head()
				synctest.Wait()
				s.hub.Publish(hub.User("42"), "", "first") // nobody reads: the writer waits
				synctest.Wait()
				test.before(s.hub)
				s.hub.Finish(hub.ReasonDrain, 0)
				s.hub.Publish(hub.User("7"), "", "later")
				s.hub.Publish(hub.User("42"), "", "later")
				s.hub.Mark(hub.NewMarkerName())
				s.hub.GapForAll(hub.GapMissed)
				want := test.want(s.hub)
				if test.own == "" {
					want = "data: first\nid: " + marker.String() + "-1\n\n" + want
				}
				go p.readAll()
				if got := p.since(0); got != want {
					t.Errorf("got  %q\nwant %q", got, want)
				}
				s.wantEnd(hub.ReasonDrain)
			})
		})
	}
}

// A long poll ends after its whole replay and everything that is queued by then: a page that is far behind would
// otherwise need one request per message, and never catch up.
func TestR23PollSendsItsWholeReplay(t *testing.T) {
	const missed, queued = 300, 20 // the replay is taken in parts
	bubble(t, config{hub: ruleHistory}, func(t *testing.T, s *testServer, l *pipeListener) {
		id := s.position("42")
		for i := range missed {
			s.hub.Publish(hub.User("42"), "", fmt.Sprint(i))
		}
		p := ask(t, l.dial(), request("user=42&poll=1", "Last-Event-ID: "+id))
		p.head()
		synctest.Wait() // the writer waits with the first part
		for i := range queued {
			s.hub.Publish(hub.User("42"), "", fmt.Sprint(missed+i))
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
