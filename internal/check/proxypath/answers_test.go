package proxypath_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"usercast/internal/check/proxypath"
	"usercast/internal/finding"
	"usercast/internal/loopback"
)

// Responses from a hub, and responses from an intermediary instead of the hub.
func TestResponses(t *testing.T) {
	t.Parallel()
	head := func(w http.ResponseWriter, contentType string) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Cache-Control", "no-cache, no-store, no-transform")
		w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	stream := func(body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream")
			io.WriteString(w, body)
		}
	}
	returns := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		level  finding.Level
		name   string
		text   string
	}{
		"full":      {stream(":\nretry: 1\nevent: busy\ndata: {\"reason\":\"user-limit\"}\n\n"), finding.Fail, "url-busy", "--max-clients-per-user"},
		"not a hub": {stream("data: hello\n\n"), finding.Fail, "url-no-hub", "not from a hub"},
		"empty":     {stream(""), finding.Fail, "url-cut", "ended before any data arrived"},
		"bye":       {stream(":\nretry: 1\nevent: ping\ndata: {}\nid: a-1\n\nevent: bye\ndata: {\"reason\":\"draining\"}\nid: a-1\n\n"), finding.Note, "url-bye", "draining"},
		"closed":    {stream(":\nretry: 1\nevent: ping\ndata: {}\nid: a-1\n\n"), finding.Fail, "url-idle-cut", "without traffic"},
		"charset": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream; charset=utf-8")
			io.WriteString(w, "retry: 1\nevent: bye\ndata: {\"reason\":\"x\"}\n\n")
		}, finding.Warn, "url-content-type", "charset=utf-8"},
		"unauthorized":     {returns(401, `{"error":"not authenticated"}`), finding.Fail, "url-unauthorized", "the hub returned 401 Unauthorized: not authenticated"},
		"login of a proxy": {returns(401, "<p>log in"), finding.Fail, "url-unauthorized", "an intermediary returned 401"},
		"insecure":         {returns(403, `{"error":"`+loopback.HostError+`"}`), finding.Fail, "url-forbidden", "--auth-insecure-anywhere"},
		"blocked":          {returns(403, "<h1>blocked</h1>"), finding.Fail, "url-forbidden", "log of the proxy, firewall or CDN"},
		"forbidden":        {returns(403, `{"error":"this user may not"}`), finding.Fail, "url-forbidden", "this user may not"},
		"teapot":           {returns(418, ""), finding.Fail, "url-status", "418"},
	} {
		server := httptest.NewServer(c.answer)
		found := (&site{ping: time.Second}).inspect(t, server.URL+"/events", func(u *proxypath.Target) { u.Publish = nil })
		server.Close()
		matched := false
		for _, f := range found {
			matched = matched || f.Level == c.level && f.Name == c.name && strings.Contains(f.What+f.Do, c.text)
		}
		if !matched {
			t.Errorf("%s: no %s %s with %q", name, c.level, c.name, c.text)
		}
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	writeCertificate(t)
	foreign := httptest.NewUnstartedServer(http.NotFoundHandler())
	foreign.Config.ErrorLog = log.New(io.Discard, "", 0)
	foreign.StartTLS()
	defer foreign.Close()
	unresponsive, err := net.Listen("tcp", "127.0.0.1:0") // connections are not accepted
	if err != nil {
		t.Fatal(err)
	}
	defer unresponsive.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for rawURL, want := range map[string]string{
		"http://127.0.0.1:1/events":                           "refuses the connection",
		"http://unknown.invalid/events":                       "unknown.invalid does not resolve",
		foreign.URL + "/events":                               "SSL_CERT_FILE",
		"https" + plain.URL[4:] + "/e":                        "does not use TLS",
		fmt.Sprint("http://", unresponsive.Addr(), "/events"): "no response within",
	} {
		found := (&site{}).inspect(t, rawURL, func(u *proxypath.Target) {
			if strings.Contains(rawURL, unresponsive.Addr().String()) {
				u.Timeout = 500 * time.Millisecond
			}
		})
		if len(found) != 1 || found[0].Level != finding.Fail || !strings.Contains(found[0].What+found[0].Do, want) {
			t.Errorf("%s: want %q", rawURL, want)
		}
	}
}

// If it is clear why no events arrive, no other finding guesses the reason.
func TestMissingEventsAreExplainedOnce(t *testing.T) {
	t.Parallel()
	s := newSite(t, time.Hour)
	for name, c := range map[string]struct {
		change func(*proxypath.Target)
		name   string
		text   string
	}{
		"other Redis": {func(u *proxypath.Target) {
			u.Publish = func(context.Context, string, string) (int64, error) { return 0, nil }
		}, "url-other-redis", "the channel does not have a subscriber in this Redis"},
		"Redis down": {func(u *proxypath.Target) {
			u.Publish = func(context.Context, string, string) (int64, error) { return 0, errors.New("down") }
		}, "url-publish", "down"},
		"other user": {func(u *proxypath.Target) {
			u.User, u.StreamUser = "43", "42"
			u.Publish = func(context.Context, string, string) (int64, error) { return 1, nil }
		}, "url-deaf", `published to user "43" (--user), but the stream is of user "42"`},
	} {
		found := s.inspect(t, "http://"+s.addr+"/events?user=42", func(u *proxypath.Target) {
			u.Watch, u.Timeout = 100*time.Millisecond, time.Second
			c.change(u)
		})
		found.want(t, finding.Fail, c.name, c.text)
		for _, f := range found {
			if f.Name == "url-quiet" {
				t.Errorf("%s: %v", name, f)
			}
		}
	}
}
