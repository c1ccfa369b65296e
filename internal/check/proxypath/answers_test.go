package proxypath_test

import (
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

// What is answered in a hub's stead, by whom and why ever.
func TestAnswers(t *testing.T) {
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
	says := func(status int, body string) http.HandlerFunc {
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
		"full":        {stream(":\nretry: 1\nevent: busy\ndata: {\"reason\":\"user-limit\"}\n\n"), finding.Fail, "url-busy", "--max-clients-per-user"},
		"no hub's":    {stream("data: hello\n\n"), finding.Fail, "url-no-hub", "not one of a hub"},
		"empty":       {stream(""), finding.Fail, "url-cut", "ended before anything came"},
		"bye":         {stream(":\nretry: 1\nevent: ping\ndata: {}\nid: a-1\n\nevent: bye\ndata: {\"reason\":\"draining\"}\nid: a-1\n\n"), finding.Note, "url-bye", "draining"},
		"cut at once": {stream(":\nretry: 1\nevent: ping\ndata: {}\nid: a-1\n\n"), finding.Fail, "url-idle-cut", "of silence"},
		"charset": {func(w http.ResponseWriter, _ *http.Request) {
			head(w, "text/event-stream; charset=utf-8")
			io.WriteString(w, "retry: 1\nevent: bye\ndata: {\"reason\":\"x\"}\n\n")
		}, finding.Warn, "url-content-type", "charset=utf-8"},
		"logged out":     {says(401, `{"error":"not authenticated"}`), finding.Fail, "url-unauthorized", "the hub answers 401 Unauthorized, not authenticated"},
		"proxy's log-in": {says(401, "<p>log in"), finding.Fail, "url-unauthorized", "something before the hub answers 401"},
		"insecure":       {says(403, `{"error":"`+loopback.HostError+`"}`), finding.Fail, "url-forbidden", "--auth-insecure-anywhere"},
		"forbidden":      {says(403, `{"error":"this user may not"}`), finding.Fail, "url-forbidden", "this user may not"},
		"teapot":         {says(418, ""), finding.Fail, "url-status", "418"},
	} {
		server := httptest.NewServer(c.answer)
		found := (&site{ping: time.Second}).look(t, server.URL+"/events", func(u *proxypath.Target) { u.Publish = nil })
		server.Close()
		there := false
		for _, f := range found {
			there = there || f.Level == c.level && f.Name == c.name && strings.Contains(f.What+f.Do, c.text)
		}
		if !there {
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
	silent, err := net.Listen("tcp", "127.0.0.1:0") // and nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	for rawURL, want := range map[string]string{
		"http://127.0.0.1:1/events":                     "refuses the connection",
		"http://nobody.invalid/events":                  "nobody.invalid does not resolve",
		foreign.URL + "/events":                         "SSL_CERT_FILE",
		"https" + plain.URL[4:] + "/e":                  "does not speak TLS",
		fmt.Sprint("http://", silent.Addr(), "/events"): "no answer within",
	} {
		found := (&site{}).look(t, rawURL, func(u *proxypath.Target) {
			if strings.Contains(rawURL, silent.Addr().String()) {
				u.Timeout = 500 * time.Millisecond
			}
		})
		if len(found) != 1 || found[0].Level != finding.Fail || !strings.Contains(found[0].What+found[0].Do, want) {
			t.Errorf("%s: want %q", rawURL, want)
		}
	}
}
