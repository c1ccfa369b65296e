package proxypath_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/certtest"
	"usercast/internal/check/proxypath"
	"usercast/internal/finding"
	"usercast/transport/admin"
	"usercast/transport/sse"
	"usercast/transport/sse/echosse"
)

// certificate has the files of the proxies' certificate, for 127.0.0.1. It is also the only CA that the test process
// trusts. A process reads the CAs once.
var certificate struct{ cert, key, both string }

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "usercast-check")
	if err != nil {
		panic(err)
	}
	certificate.cert, certificate.key, certificate.both = dir+"/cert.pem", dir+"/key.pem", dir+"/both.pem"
	os.Setenv("SSL_CERT_FILE", certificate.cert)
	code := m.Run()
	os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

var certified sync.Once

// writeCertificate writes the files of certificate, once. Each test that uses TLS calls it first.
func writeCertificate(t *testing.T) {
	t.Helper()
	certified.Do(func() {
		pair := certtest.New(t, "proxy")
		for file, content := range map[string][]byte{
			certificate.cert: pair.Cert, certificate.key: pair.Key, certificate.both: slices.Concat(pair.Cert, pair.Key),
		} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A site is a hub without Redis. Its stream is at /events of addr.
type site struct {
	hub  *hub.PubSub
	addr string
	ping time.Duration
}

func newSite(t *testing.T, ping time.Duration) *site {
	t.Helper()
	return newSiteWith(t, ping, auth.Insecure)
}

func newSiteWith(t *testing.T, ping time.Duration, authenticate auth.Authenticator) *site {
	t.Helper()
	s := &site{ping: ping}
	s.hub = hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry, BroadcastUser: "*"})
	handler := sse.New(sse.Config{Hub: s.hub.Hub, Authenticate: authenticate, PingInterval: ping})
	app := admin.NewEcho()
	app.Any("/events", echosse.Handler(handler))
	admin.MountHealth(app, func() admin.Status { return admin.Status{Ready: true} }, false)
	server := httptest.NewServer(app)
	s.addr = server.Listener.Addr().String()
	t.Cleanup(func() {
		s.hub.Finish(hub.ReasonDrain, 0)
		s.hub.Close()
		handler.Wait()
		server.Close()
	})
	return s
}

// inspect returns the findings about user 42's stream at a URL. It is safe for concurrent use.
func (s *site) inspect(t *testing.T, rawURL string, change func(*proxypath.Target)) findings {
	t.Helper()
	target, err := url.Parse(rawURL)
	if err != nil {
		t.Error(err)
		return nil
	}
	u := proxypath.Target{
		URL: target, Header: http.Header{}, Path: "/events", PingInterval: s.ping, AuthHint: "log in", Timeout: 10 * time.Second,
		// Long enough for a ping to arrive.
		Watch: s.ping + 200*time.Millisecond,
		Publish: func(_ context.Context, topic, payload string) (int64, error) {
			s.hub.Publish(hub.User("42"), topic, payload)
			return 1, nil
		},
	}
	if s.hub != nil {
		u.Streams = func(context.Context) (int, error) { return len(s.hub.ClientsOf(hub.User("42"))), nil }
	}
	if change != nil {
		change(&u)
	}
	var found findings
	u.Run(context.Background(), func(f finding.Finding) { found = append(found, f) })
	t.Logf("%s: %v", rawURL, found)
	return found
}

type findings []finding.Finding

func (f findings) String() string {
	var b strings.Builder
	for _, one := range f {
		fmt.Fprintf(&b, "\n  %-4s %s: %s", one.Level, one.Name, one.What)
		if one.Do != "" {
			fmt.Fprintf(&b, "\n       → %s", one.Do)
		}
	}
	return b.String()
}

// want requires a finding with this level and name, and with text in its observation or its advice. All other findings
// must be ok or a note.
func (f findings) want(t *testing.T, level finding.Level, name, text string) {
	t.Helper()
	matched := false
	for _, one := range f {
		if one.Level == level && one.Name == name && strings.Contains(one.What+one.Do, text) {
			matched = true
			if one.Level >= finding.Warn && one.Do == "" {
				t.Errorf("%s: no advice", one.Name)
			}
		} else if one.Level > finding.Note {
			t.Errorf("unwanted: %v", findings{one})
		}
	}
	if !matched {
		t.Errorf("no %s %s that contains %q", level, name, text)
	}
}

// wantGood requires that events and pings arrive, and that there are no warnings or failures.
func (f findings) wantGood(t *testing.T) {
	t.Helper()
	f.want(t, finding.OK, "url-events", "")
	f.want(t, finding.OK, "url-quiet", "received pings")
	f.want(t, finding.OK, "url-leave", "")
}
