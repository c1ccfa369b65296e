package sse

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// parseQuery agrees with package url, and no id is an error.
func FuzzParseQuery(f *testing.F) {
	f.Add("topic=a&topic=&event=topic&ping=event&last-event-id=b-1", "")
	f.Add("user=42&user=43&topic=%0d%0a&event=topic;x", "abc-7")
	f.Add("%zz", "\x00\xff")
	f.Fuzz(func(t *testing.T, raw, lastID string) {
		r := &http.Request{URL: &url.URL{RawQuery: raw}, Header: http.Header{"Last-Event-Id": {lastID}}}
		q, err := parseQuery(r)
		values, bad := url.ParseQuery(raw)
		only := func(name, value string) bool {
			return !slices.ContainsFunc(values[name], func(v string) bool { return v != value })
		}
		if want := bad == nil && len(raw) <= maxQuery && only("event", "topic") && only("ping", "event"); (err == nil) != want {
			t.Fatalf("%q: %v", raw, err)
		}
		if err != nil {
			return
		}
		resume := lastID
		if resume == "" {
			resume = values.Get("last-event-id")
		}
		if !slices.Equal(q.topics, values["topic"]) || (q.topics == nil) != !values.Has("topic") ||
			q.named != values.Has("event") || q.pingEvents != values.Has("ping") || q.resume != resume {
			t.Errorf("%q, %q: %+v", raw, lastID, q)
		}
	})
}

// A client that does not accept text/event-stream does not receive an event stream as a rejection.
func FuzzAcceptsStream(f *testing.F) {
	f.Add("text/event-stream")
	f.Add("text/html, Text/Event-Stream;q=0.5, */*;q=0")
	f.Add("text/event-stream;q=0;q=1,,;")
	f.Fuzz(func(t *testing.T, accept string) {
		r := &http.Request{Header: http.Header{"Accept": {accept}}}
		if acceptsStream(r) && !strings.Contains(strings.ToLower(accept), mediaType) {
			t.Errorf("%q", accept)
		}
	})
}

// An origin is accepted only if it consists of scheme, host and port.
func FuzzOrigin(f *testing.F) {
	for _, seed := range [][2]string{
		{"https://hub.example", "hub.example"}, {"http://hub.example:80", "hub.example"}, {"null", "null"},
		{"https://hub.example@evil.example", "hub.example"}, {"https://hub.example.evil.example", "hub.example"},
		{"https://[::1]:8080", "[::1]:8080"}, {"HTTPS://HUB.example:443", "hub.EXAMPLE:443"}, {"http://a,http://b", "b"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, origin, host string) {
		r := httptest.NewRequest(http.MethodGet, "/events", nil)
		r.Header["Origin"], r.Host = []string{origin}, host
		if origin == "" || (Origins{}).check(r) != nil {
			return
		}
		o := strings.ToLower(origin)
		rest, secure := strings.CutPrefix(o, "https://")
		port := ":443"
		if !secure {
			rest, port = strings.TrimPrefix(o, "http://"), ":80"
		}
		h := strings.ToLower(host)
		if rest == o || strings.ContainsAny(rest, "/@?#\\ ,") || rest == "" ||
			rest != h && rest+port != h && rest != h+port {
			if utf8.ValidString(o + h) { // lower case is not the same for what is no text
				t.Errorf("a page of %q may open a stream of %q", origin, host)
			}
		}
	})
}
