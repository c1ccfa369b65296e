package sse_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/eventstream"
)

// All blocks are the same bytes with each transport: PRODUCT.md, "Successful response", "Rejections" and "Stream
// termination". The id is the last field, every id has data, and a blank line does not follow keepAlive.
func TestInvariant13Bytes(t *testing.T) {
	t.Parallel()
	const opening = ":\nretry: MS\nevent: ping\ndata: {}\nid: "
	tests := map[string]struct {
		query, id string
		published []string // before the stream
		live      func(s *testServer)
		want      string
	}{
		"a new stream": {live: func(s *testServer) {
			s.hub.Publish(hub.User("42"), "", "a\nb")
			s.hub.Publish(hub.User("7"), "", "not for this user")
			s.hub.Publish(hub.User("42"), "news", "{}")
			s.hub.GapForAll(hub.GapRedisReconnect)
			s.hub.Disconnect("42")
		}, query: "&event=topic", want: opening + "BOOT-0\n\ndata: a\ndata: b\nid: BOOT-1\n\nevent: news\ndata: {}\nid: BOOT-3\n\n" +
			"event: gap\ndata: {\"reason\":\"redis-reconnect\"}\nid: BOOT-3.BOOT.1\n\nretry: MS\nevent: bye\ndata: {\"reason\":\"kicked\"}\nid: BOOT-3.BOOT.1\n\n"},
		"a client that resumes": {published: []string{"old", "missed"}, id: "HERE-1",
			want: opening + "BOOT-1\n\ndata: missed\nid: BOOT-2\n\nretry: MS\nevent: bye\ndata: {\"reason\":\"kicked\"}\nid: BOOT-2\n\n"},
		"a client with the id of another process": {published: []string{"missed"}, id: "another.process_1-7",
			want: opening + "another.process_1-7\n\nevent: gap\ndata: {\"reason\":\"unknown-id\"}\nid: BOOT-1\n\n" +
				"retry: MS\nevent: bye\ndata: {\"reason\":\"kicked\"}\nid: BOOT-1\n\n"},
		"an id that cannot be written": {id: "a b", want: opening + "unknown\n\nevent: gap\ndata: {\"reason\":\"unknown-id\"}\nid: BOOT-0\n\n" +
			"retry: MS\nevent: bye\ndata: {\"reason\":\"kicked\"}\nid: BOOT-0\n\n"},
		"an id that is too long": {id: strings.Repeat("x", 129), want: opening + "unknown\n\nevent: gap\ndata: {\"reason\":\"unknown-id\"}\nid: BOOT-0\n\n" +
			"retry: MS\nevent: bye\ndata: {\"reason\":\"kicked\"}\nid: BOOT-0\n\n"},
		"a long poll": {query: "&poll=1", live: func(s *testServer) { s.hub.Publish(hub.User("42"), "", "a") }, want: opening + "BOOT-0\n\ndata: a\nid: BOOT-1\n\n"},
		"a long poll that resumes": {query: "&poll=1", published: []string{"old", "b", "c"}, id: "HERE-1", live: func(*testServer) {},
			want: opening + "BOOT-1\n\ndata: b\nid: BOOT-2\n\ndata: c\nid: BOOT-3\n\n"},
		"a long poll with a gap": {query: "&poll=1", id: "x-1", live: func(*testServer) {},
			want: opening + "x-1\n\nevent: gap\ndata: {\"reason\":\"unknown-id\"}\nid: BOOT-0\n\n"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config{hub: hub.Config{HistoryPerUser: 10, HistoryAge: time.Hour, HistoryBytes: 1 << 20}}
			eachTransport(t, c, func(t *testing.T, s *testServer, tr transport) {
				first, err := s.hub.Register(hub.Options{User: "42", Consumer: idle{}}) // begins the history
				if err != nil {
					t.Fatal(err)
				}
				first.End(hub.ReasonClosed)
				for _, text := range test.published {
					s.hub.Publish(hub.User("42"), "", text)
				}
				tr.query = test.query
				var headers []string
				if test.id != "" {
					headers = []string{"Last-Event-ID: " + strings.Replace(test.id, "HERE", s.hub.Boot(), 1)}
				}
				body := tr.visit(t, s, headers...).body()
				if test.live != nil {
					test.live(s)
				} else {
					s.hub.Disconnect("42")
				}
				all, err := io.ReadAll(body)
				if got := plain(string(all)); got != test.want || err != nil {
					t.Errorf("got %q, %v\nwant %q", got, err, test.want)
				}
			})
		})
	}
}

// A stream without messages receives comments, and a ping event if the position has changed. With ping=event, each ping
// has an id: the new position, or the last id that was sent.
func TestInvariant13BytesOfPings(t *testing.T) {
	t.Parallel()
	const event = "event: ping\ndata: {}\nid: "
	for query, want := range map[string]string{
		"":            ":\n" + event + "BOOT-1\n\n:\n",
		"&ping=event": event + "BOOT-0\n\n" + event + "BOOT-1\n\n" + event + "BOOT-1\n\n",
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			c := config{}
			c.sse.PingInterval = 400 * time.Millisecond
			eachTransport(t, c, func(t *testing.T, s *testServer, tr transport) {
				tr.query = query
				body := tr.visit(t, s).body()
				p := eventstream.NewReader(body)
				p.Block()
				got := ""
				for i := range strings.Count(want, "\n") {
					line, err := p.Line()
					if err != nil {
						t.Fatal(err)
					}
					got += line + "\n"
					if strings.HasPrefix(want, got) && (got == ":\n" || got == plain(event+"BOOT-0\n\n")) && i < 4 {
						s.hub.Publish(hub.User("7"), "", "for another user")
					}
					got = plain(got)
				}
				if got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		})
	}
}

// A temporary rejection repeats the client's own id. A rejection that follows another within a second sends the same
// bytes immediately but ends a second later, unless the hub is draining.
func TestInvariant13BytesOfRejections(t *testing.T) {
	t.Parallel()
	const hold = time.Second
	for name, draining := range map[string]bool{"unavailable": false, "draining": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := config{}
			c.sse.Authenticate = func(*http.Request) (auth.Identity, error) { return auth.Identity{}, errors.New("away") }
			eachTransport(t, c, func(t *testing.T, s *testServer, tr transport) {
				reason := "auth-unavailable"
				if draining {
					s.hub.Refuse()
					reason = "draining"
				}
				for i, id := range []string{"", "x-1", "a b"} {
					var headers []string
					want := ":\nretry: MS\nevent: busy\ndata: {\"reason\":\"" + reason + "\"}\n"
					if id != "" {
						headers = []string{"Last-Event-ID: " + id}
						want += "id: " + strings.Replace(id, "a b", "unknown", 1) + "\n"
					}
					want += "\n"
					body := tr.visit(t, s, headers...).body()
					p := eventstream.NewReader(body)
					got := ""
					for range strings.Count(want, "\n") {
						line, err := p.Line()
						if err != nil {
							t.Fatal(err)
						}
						got += line + "\n"
					}
					if plain(got) != want {
						t.Errorf("got %q, want %q", plain(got), want)
					}
					held := s.handler.Stats().Held // the previous one may still be counted
					start := time.Now()
					if rest, err := p.Line(); len(rest) > 0 || err != io.EOF {
						t.Errorf("then %q, %v", rest, err)
					}
					took := time.Since(start)
					if wait := i > 0 && !draining; wait != (held > 0) || wait != (took > hold/2) {
						t.Errorf("rejection %d: %d held, it ends after %v", i+1, held, took)
					}
				}
				for start := time.Now(); s.handler.Stats().Held > 0; time.Sleep(time.Millisecond) {
					if time.Since(start) > 10*time.Second {
						t.Fatal("one is still held")
					}
				}
			})
		})
	}
}
