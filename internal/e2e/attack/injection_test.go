package attack

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"usercast/internal/eventstream"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// hostile is text that would be interpreted as markup, protocol or code if it were not escaped.
var hostile = []string{
	"a\nid: 99", "a\rid: 99", "a\r\nid: 99", "a\n\ndata: b", "a\r\rdata: b", "\nevent: bye\ndata: {}\n\n", "\nretry: 1\n\n", "retry: 1",
	"data: a", "id: 99", "event: bye", ": a comment", "a\x00b", "\x00", "\n\n", "\r\n\r\n", "\u2028id: 99\u2028", "\u0085id: 99",
}

var validID = regexp.MustCompile(`^[a-z][a-z2-7]{7,12}-\d+(\.[a-z][a-z2-7]{7}\.\d+)?$`)

// Whatever text an app publishes, in any field, a page receives it as exactly one event.
func TestTextCannotInjectEvents(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	lines := strings.NewReplacer("\r\n", "\n", "\r", "\n")
	p := h.Open(t, "user=42&event=topic")
	opened, lastID := p.Retry, p.LastID
	check := func(name, data string) {
		t.Helper()
		e, err := p.Next()
		if err != nil || e.Type != name || e.Data != lines.Replace(data) {
			t.Fatalf("got %+q, %v; want %q of %q", e, err, lines.Replace(data), name)
		}
		if !validID.MatchString(e.ID) || e.ID == lastID || p.Retry != opened {
			t.Fatalf("after %q the last ID is %q and retry %v", data, e.ID, p.Retry)
		}
		lastID = e.ID
	}
	for _, text := range hostile {
		app.Publish(t, "user-42", text)
		check("message", text)
		app.Publish(t, "user-42:"+text, text)
		name := text
		if strings.ContainsAny(text, "\r\n\x00") {
			name = "message" // a topic that is not a valid event name
		}
		check(name, text)
	}
	// Text in the query of a request cannot inject events either.
	for _, text := range hostile {
		r, err := http.NewRequest("GET", h.PublicURL("/events"), nil)
		if err != nil {
			t.Fatal(err)
		}
		q := r.URL.Query()
		q.Set("user", strings.ReplaceAll(text, ":", ";")) // no user has a ':'
		q.Set("topic", text)
		q.Set("last-event-id", text)
		page, err := openPageAfterGap(h.PublicAddr(), q.Encode())
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		app.Publish(t, "user-"+q.Get("user")+":"+text, text)
		page.Want(t, lines.Replace(text))
		page.Close()
	}
}

// openPageAfterGap opens a stream with an unknown last ID, and reads the gap.
func openPageAfterGap(addr, query string) (*ssetest.Stream, error) {
	p, err := ssetest.Request(addr, query)
	if err != nil {
		return nil, err
	}
	if p.Response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("response %s", p.Response.Status)
	}
	return p, p.Expect("gap", `{"reason":"unknown-id"}`)
}

// Text in a request cannot inject headers into the response, whatever its status.
func TestRequestCannotInjectResponseHeaders(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--allow-origin", "https://app.example")
		const evil = "X-Evil: yes"
		for _, request := range []string{
			"GET /events?user=42&topic=a%0d%0a" + evil + " HTTP/1.1\r\nHost: h\r\n",
			"GET /events?user=42%0d%0a" + evil + " HTTP/1.1\r\nHost: h\r\n",
			"GET /events?user=42&last-event-id=1%0d%0aX-Evil:%20yes%0d%0a%0d%0adata:%20a HTTP/1.1\r\nHost: h\r\n",
			"GET /events?user=42&event=%0d%0aX-Evil:%20yes HTTP/1.1\r\nHost: h\r\n",
			"GET /events%0d%0aX-Evil:%20yes?user=42 HTTP/1.1\r\nHost: h\r\n",
			"GET /%0d%0aX-Evil:%20yes/../events HTTP/1.1\r\nHost: h\r\n",
			"GET //%0d%0aX-Evil:%20yes HTTP/1.1\r\nHost: h\r\n",
			"GET /events?user=42 HTTP/1.1\r\nHost: h\r\nLast-Event-ID: 1\rX-Evil: yes\r\n",
			"GET /events?user=42 HTTP/1.1\r\nHost: h\r\nLast-Event-ID: 1\r\n X-Evil: yes\r\n",
			"GET /events?user=42 HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example\rX-Evil: yes\r\n",
			"GET /events?user=42 HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example\r\n X-Evil: yes\r\n",
			"GET /events?user=42 HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example%0d%0aX-Evil: yes\r\n",
			"OPTIONS /events?user=42 HTTP/1.1\r\nHost: h\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: a\r X-Evil: yes\r\n",
			"GET /events?user=42 HTTP/1.1\r\nHost: h\rX-Evil: yes\r\n",
			"GET /events?user=42 HTTP/1.1\r\nHost: h%0d%0aX-Evil: yes\r\n",
			"GET /events?user=42\rX-Evil: yes HTTP/1.1\r\nHost: h\r\n",
			"GET /events?user=42\x00 HTTP/1.1\r\nHost: h\r\n",
			"GET /events?user=42 HTTP/1.1\rX-Evil: yes\r\nHost: h\r\n",
		} {
			conn := hubtest.Dial(t, h.PublicAddr())
			io.WriteString(conn, request+"Connection: close\r\n\r\n")
			var head strings.Builder
			r := bufio.NewReader(conn)
			for {
				line, err := r.ReadString('\n')
				if line == "\r\n" || err != nil {
					break
				}
				head.WriteString(line)
				if !strings.HasSuffix(line, "\r\n") || strings.Count(line, "\r") != 1 {
					t.Errorf("%q: the response has the header line %q", request, line)
				}
			}
			if got := head.String(); !strings.HasPrefix(got, "HTTP/1.1 ") || strings.Contains(strings.ToLower(got), "evil") {
				t.Errorf("%q: response %q", request, got)
			}
			conn.Close()
		}
	})
}

// A query may repeat every parameter except user, up to 16 KiB. This limit bounds the memory that a stream needs for
// its query.
func TestLongAndRepeatedParameters(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--max-clients-per-user", "0")
	app := hubtest.NewPublisher(t, server.Addr())
	full := "user=42&topic=t&x="
	full += strings.Repeat("x", 16<<10-len(full))
	for query, code := range map[string]int{
		full:       200,
		full + "x": 400,
		"user=42&topic=t" + strings.Repeat("&topic=t", 2000):                200,
		"user=42&topic=t" + strings.Repeat("&topic=t", 2100):                400,
		"user=42&topic=t" + strings.Repeat("&", 9000):                       200,
		"user=42&topic=t" + strings.Repeat("&", 16000):                      400, // more than 10,000 parameters
		"user=42&topic=t&event=topic&event=topic":                           200,
		"user=42&topic=t&event=topic&event=":                                400,
		"user=42&user=42":                                                   400,
		"user=42&topic=t&last-event-id=" + strings.Repeat("9", 16000):       200,
		"user=42&topic=t&last-event-id=1&last-event-id=2":                   200,
		"user=42&topic=t&" + strings.Repeat("%41", 5000) + "=1":             200,
		"user=42&user=" + strings.Repeat("x", 16<<10):                       400,
		"user=42&topic=t&ping=event&ping=event" + strings.Repeat("&a=b", 9): 200,
	} {
		p, err := ssetest.Request(h.PublicAddr(), query)
		if err != nil {
			t.Fatal(err)
		}
		if p.Response.StatusCode != code {
			t.Errorf("%.60q… (%d bytes) : response %s, want %d", query, len(query), p.Response.Status, code)
		}
		if p.Response.StatusCode == 200 {
			p.Block() // after the opening block, it receives all messages
			app.Publish(t, "user-42:t", "hello")
			deadline := time.Now().Add(hubtest.Soon)
			for e := (eventstream.Event{}); e.Data != "hello"; {
				if e, err = p.Next(); err != nil || time.Now().After(deadline) {
					t.Fatalf("%.60q: %v", query, err)
				}
			}
		}
		p.Close()
	}
}
