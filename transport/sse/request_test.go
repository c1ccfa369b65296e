package sse_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/eventstream"
	"usercast/transport/sse"
)

// No id is an error, because the browser would send it again with every reconnect. An invalid id counts
// as unknown.
func TestInvalidLastEventID(t *testing.T) {
	s := newTestServer(t, config{})
	for _, id := range []string{
		"x", "-", "0", "abc-1", "1526919030474-0", "'; drop table", "\xff\xfe", "\x00", strings.Repeat("x", 100_000), "a b\tc", "%zz", "boot-01",
	} {
		header := httptest.NewRequest(http.MethodGet, "/events?user=42", nil)
		header.Header.Set("Last-Event-ID", id)
		query := httptest.NewRequest(http.MethodGet, "/events?user=42&last-event-id=x", nil)
		if len(id) < 1000 {
			query = httptest.NewRequest(http.MethodGet, "/events?user=42&last-event-id="+url.QueryEscape(id), nil)
		}
		for _, r := range []*http.Request{header, query} {
			events := parseStream(t, readUntilGone(t, s, r))
			if len(events) != 1 || events[0].Type != "gap" || events[0].Data != `{"reason":"unknown-id"}` {
				t.Errorf("id %.40q: %q", id, events)
			}
		}
	}
}

func TestLastEventIDHeaderWins(t *testing.T) {
	s := newTestServer(t, config{})
	for range 3 {
		s.hub.Publish(hub.User("nobody"), "", "")
	}
	_, p := eventstream.Parse(openAndClose(s, "user=42").Body.String())
	newest, old := p.LastID, strings.TrimSuffix(p.LastID, "3")+"1"
	tests := []struct {
		name, header, query, want string
	}{
		{"neither", "", "", ""},
		{"header, newest", newest, "", ""},
		{"query, newest", "", newest, ""},
		{"header, old", old, "", "history-expired"},
		{"query, old", "", old, "history-expired"},
		{"both, the header is newest", newest, old, ""},
		{"both, the header is old", old, newest, "history-expired"},
		{"an empty header is none", "", "strange", "unknown-id"},
	}
	for _, test := range tests {
		// A gap is a separate entry, so each test begins with a new hub.
		s := newTestServer(t, config{})
		for range 3 {
			s.hub.Publish(hub.User("nobody"), "", "")
		}
		_, p := eventstream.Parse(openAndClose(s, "user=42").Body.String())
		here := strings.NewReplacer(strings.TrimSuffix(newest, "3"), strings.TrimSuffix(p.LastID, "3"))
		r := httptest.NewRequest(http.MethodGet, "/events?user=42&last-event-id="+here.Replace(test.query), nil)
		r.Header["Last-Event-Id"] = []string{here.Replace(test.header)}
		events := parseStream(t, readUntilGone(t, s, r))
		got := ""
		for _, e := range events {
			got += strings.TrimSuffix(strings.TrimPrefix(e.Data, `{"reason":"`), `"}`)
		}
		if got != test.want {
			t.Errorf("%s: received the gap %q, want %q", test.name, got, test.want)
		}
	}
}

func TestTopicsOfTheQuery(t *testing.T) {
	tests := []struct{ query, want string }{
		{"", "|none|a|b:c"},
		{"topic=a", "|a"},
		{"topic=", "|none"},
		{"topic", "|none"},
		{"topic=a&topic=&topic=a", "|none|a"},
		{"topic=b%3Ac&foo=bar", "|b:c"},
		{"topic=%00", ""},
		{"Topic=a", "|none|a|b:c"},
	}
	for _, test := range tests {
		s := newTestServer(t, config{})
		r := httptest.NewRequest(http.MethodGet, "/events?user=42&"+test.query, nil)
		text := readUntilGone(t, s, r, func() {
			s.hub.Publish(hub.User("42"), "", "none")
			s.hub.Publish(hub.User("42"), "a", "a")
			s.hub.Publish(hub.User("42"), "b:c", "b:c")
		})
		got := ""
		events := parseStream(t, text)
		for _, e := range events {
			got += "|" + e.Data
		}
		if got != test.want {
			t.Errorf("?%s: %q, want %q", test.query, got, test.want)
		}
	}
}

// The number of topics in a URL is limited, because each costs time under the hub's lock for each
// message.
func TestTopicsOfTheQueryAreBounded(t *testing.T) {
	topics := func(n int) string {
		var q strings.Builder
		for i := range n {
			fmt.Fprintf(&q, "&topic=t%d", i)
		}
		return q.String()
	}
	s := newTestServer(t, config{sse: sse.Config{Authenticate: func(r *http.Request) (auth.Identity, error) {
		id, err := auth.Insecure(r)
		if r.URL.Query().Has("limited") {
			id.Topics = []string{"t0", "t1"}
		}
		return id, err
	}}})
	for _, test := range []struct {
		query string
		code  int
	}{
		{"user=42" + topics(64), 200},
		{"user=42" + topics(64) + topics(64), 200},
		{"user=42" + strings.Repeat("&topic=a", 2000), 200},
		{"user=42" + topics(64) + "&topic=", 400},
		{"user=42" + topics(65), 400},
		{"user=42" + topics(1300), 400},
		{"user=42&limited" + topics(2) + topics(2), 200},
		{"user=42&limited" + topics(65), 400}, // before the topics are checked
		{topics(65), 400},                     // before the request is authenticated
	} {
		before := s.handler.Stats().Rejects["bad-request"]
		a := openAndClose(s, test.query)
		if a.Code != test.code {
			t.Errorf("%.60s, %d bytes: %d, want %d", test.query, len(test.query), a.Code, test.code)
		}
		rejected := s.handler.Stats().Rejects["bad-request"] - before
		if test.code == 400 && (rejected != 1 || !strings.Contains(a.Body.String(), `{"error":"the query has more than 64 different topics; `)) {
			t.Errorf("%.60s, %d bytes: %s, counted %d times", test.query, len(test.query), a.Body, rejected)
		}
	}
}

// A stream keeps each topic only once, without the rest of the query.
func TestStreamKeepsTheDifferentTopicsOnly(t *testing.T) {
	s := newTestServer(t, config{})
	r := httptest.NewRequest(http.MethodGet, "/events?user=42&topic=b&topic=a&topic=b&topic=", nil)
	readUntilGone(t, s, r, func() {
		if got := s.hub.ClientsOf(hub.User("42"))[0].Topics(); !slices.Equal(slices.Sorted(slices.Values(got)), []string{"", "a", "b"}) {
			t.Errorf("topics %q", got)
		}
	})
}

// readUntilGone returns everything that a stream sends until the browser disconnects, which it does when all
// queued messages were written.
func readUntilGone(t *testing.T, s *testServer, r *http.Request, meanwhile ...func()) string {
	t.Helper()
	recorder := httptest.NewRecorder()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.handler.ServeHTTP(recorder, r)
	}()
	for s.hub.Stats().Clients == 0 {
	}
	for _, f := range meanwhile {
		f()
	}
	s.hub.Finish(hub.ReasonFailed, 0) // does not send bye
	<-finished
	return recorder.Body.String()
}

// Polyfills spell the parameter in different ways. The header takes precedence. The last of several non-empty values
// counts.
func TestSpellingsOfLastEventID(t *testing.T) {
	for query, want := range map[string]string{
		"last-event-id=a-1":                                 "a-1",
		"lastEventId=a-1":                                   "a-1",
		"lastEventID=a-1":                                   "a-1",
		"last_event_id=a-1":                                 "a-1",
		"Last-Event-Id=a-1":                                 "a-1",
		"LASTEVENTID=a-1":                                   "a-1",
		"last%2Devent%5fid=a%2D1":                           "a-1",
		"last-event-id=a-1&lastEventId=a-2":                 "a-2",
		"lastEventId=a-2&last-event-id=a-1":                 "a-1",
		"last-event-id=a-1&last-event-id=":                  "a-1",
		"last-event-id=a-1&lastEventId":                     "a-1",
		"last-event-id=":                                    "",
		"last-event-ids=a-1&lastevent=a-1&xlasteventid=a-1": "",
		"last-event-id=a b":                                 "unknown",
		"last-event-id=" + strings.Repeat("x", 129):         "unknown",
		"last-event-id=" + strings.Repeat("x", 128):         strings.Repeat("x", 128),
	} {
		for header, want := range map[string]string{"": want, "h-1": "h-1"} {
			s := newTestServer(t, config{})
			r := httptest.NewRequest(http.MethodGet, "/events", nil)
			r.URL.RawQuery = "user=42&" + query
			r.Header["Last-Event-Id"] = []string{header}
			events, _ := eventstream.Parse(readUntilGone(t, s, r))
			if first := events[0].ID; first != want && !(want == "" && strings.HasSuffix(first, "-0")) {
				t.Errorf("%q, header %q: it opens with %q, want %q", query, header, first, want)
			}
		}
	}
}
