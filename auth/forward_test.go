package auth_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/auth"
)

// An app responds to session checks and counts them.
type app struct {
	*httptest.Server
	requests, open, most atomic.Int64
	came                 chan struct{} // receives an item per session check
}

func newApp(t *testing.T, answer http.HandlerFunc) *app {
	t.Helper()
	a := &app{came: make(chan struct{}, 10_000)} // more than the session checks of any test
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.requests.Add(1)
		a.came <- struct{}{}
		n := a.open.Add(1)
		defer a.open.Add(-1)
		for most := a.most.Load(); n > most && !a.most.CompareAndSwap(most, n); most = a.most.Load() {
		}
		answer(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *app) forward(t *testing.T, c auth.ForwardConfig) *auth.Forward {
	t.Helper()
	if c.Cache == 0 {
		c.Cache = -1
	}
	if c.URL == nil {
		c.URL, _ = url.Parse(a.URL + "/session?from=hub")
	}
	f := auth.NewForward(c)
	t.Cleanup(f.Close)
	return f
}

// returnUser accepts every request, with the user in its cookie.
func returnUser(w http.ResponseWriter, r *http.Request) {
	cookie, err := r.Cookie("user")
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-User-ID", cookie.Value)
}

func from(user string) *http.Request {
	r := httptest.NewRequest("GET", "/events?topic=a", nil)
	r.Header.Set("Cookie", "user="+user)
	return r
}

func TestForwardParsesTheResponse(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		t.Error("the redirect was followed")
		w.Header().Set("X-User-ID", "1")
	}))
	defer other.Close()
	temporary := errors.New("temporary")
	tests := []struct {
		name   string
		answer http.HandlerFunc
		want   auth.Identity
		err    error
	}{
		{"yes", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "42") }, auth.Identity{User: "42"}, nil},
		{"accepted with topics", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.Header().Set("X-User-Topics", `a, b:c,,"d,\"e", ""`)
		}, auth.Identity{User: "42", Topics: []string{"a", "b:c", `d,"e`, ""}}, nil},
		{"accepted with an empty topics header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.Header().Set("X-User-Topics", "")
		}, auth.Identity{User: "42", Topics: []string{}}, nil},
		{"accepted with topics in two lines", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["X-User-Id"], w.Header()["X-User-Topics"] = []string{"42"}, []string{"a", "b"}
		}, auth.Identity{User: "42", Topics: []string{"a", "b"}}, nil},
		{"invalid topics", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.Header().Set("X-User-Topics", `a,"b`)
		}, auth.Identity{}, temporary},
		{"an empty user", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "") }, auth.Identity{}, auth.ErrUnauthorized},
		{"blank user", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", " ") }, auth.Identity{}, auth.ErrUnauthorized},
		{"user in UTF-8", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "café") }, auth.Identity{User: "café"}, nil},
		{"user in ISO-8859-1", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "caf\xe9") }, auth.Identity{}, auth.ErrBadUser},
		{"topics in ISO-8859-1", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.Header().Set("X-User-Topics", "caf\xe9")
		}, auth.Identity{}, temporary},
		{"200 without a user", func(http.ResponseWriter, *http.Request) {}, auth.Identity{}, temporary},
		{"two users", func(w http.ResponseWriter, _ *http.Request) { w.Header()["X-User-Id"] = []string{"1", "2"} }, auth.Identity{}, temporary},
		{"401", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, auth.Identity{}, auth.ErrUnauthorized},
		{"401 with a user", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.WriteHeader(401)
		}, auth.Identity{}, auth.ErrUnauthorized},
		{"403", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, auth.Identity{}, auth.ErrForbidden},
		{"302", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-User-ID", "42")
			http.Redirect(w, r, other.URL, http.StatusFound)
		}, auth.Identity{}, auth.ErrUnauthorized},
		{"307", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}, auth.Identity{}, auth.ErrUnauthorized},
		{"302 to nowhere", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(302) }, auth.Identity{}, auth.ErrUnauthorized},
		{"204", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.WriteHeader(204)
		}, auth.Identity{}, temporary},
		{"404", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, auth.Identity{}, temporary},
		{"429", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, auth.Identity{}, temporary},
		{"500", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, auth.Identity{}, temporary},
		{"502", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, auth.Identity{}, temporary},
		{"hangs up", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, auth.Identity{}, temporary},
		{"headers without end", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "42")
			w.Header().Set("X-Large", strings.Repeat("x", 1<<20))
		}, auth.Identity{}, temporary},
		{"a body without end", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-User-ID", "42")
			for r.Context().Err() == nil { // the hub reads only a limited part
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		}, auth.Identity{User: "42"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newApp(t, test.answer).forward(t, auth.ForwardConfig{Timeout: time.Minute, Cache: time.Minute})
			for range 2 { // the second result may come from the cache
				id, err := f.Authenticate(from("42"))
				if test.err == temporary {
					if err == nil || isPermanent(err) {
						t.Errorf("%+v, %v; want a temporary error", id, err)
					}
					continue
				}
				if id.User != test.want.User || !slices.Equal(id.Topics, test.want.Topics) || (id.Topics == nil) != (test.want.Topics == nil) || !errors.Is(err, test.err) {
					t.Errorf("%+v, %v; want %+v, %v", id, err, test.want, test.err)
				}
			}
		})
	}
}

func isPermanent(err error) bool {
	return slices.ContainsFunc([]error{auth.ErrUnauthorized, auth.ErrForbidden, auth.ErrBadUser, auth.ErrMalformed},
		func(no error) bool { return errors.Is(err, no) })
}

func TestForwardSendsOnlySelectedHeaders(t *testing.T) {
	var got http.Header
	var host, uri, method string
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		got, host, uri, method = r.Header, r.Host, r.RequestURI, r.Method
		returnUser(w, r)
	})
	request := func(remote string, headers ...string) *http.Request {
		r := httptest.NewRequest("GET", "http://hub.example/events?token=x", nil)
		r.RemoteAddr = remote
		for i := 0; i < len(headers); i += 2 {
			r.Header.Add(headers[i], headers[i+1])
		}
		return r
	}
	f := app.forward(t, auth.ForwardConfig{
		Host: "app.example:8443", Headers: []string{"x-tenant", "Accept-Language"}, Proxies: auth.Proxies{netip.MustParsePrefix("10.0.0.0/8")},
	})
	always := http.Header{
		"Accept": {"application/json"}, "X-Requested-With": {"XMLHttpRequest"},
		"X-Forwarded-Host": {"hub.example"}, "X-Forwarded-Proto": {"http"},
	}
	tests := []struct {
		name    string
		request *http.Request
		want    http.Header
	}{
		{"credentials", request("192.0.2.1:9", "Cookie", "user=1", "Cookie", "b=2", "Authorization", "Bearer x", "Origin", "https://app.example"),
			http.Header{"Cookie": {"user=1; b=2"}, "Authorization": {"Bearer x"}, "Origin": {"https://app.example"}, "X-Forwarded-For": {"192.0.2.1"}}},
		{"the browser's User-Agent", request("192.0.2.1:9", "User-Agent", "Mozilla/5.0 (X11)"),
			http.Header{"User-Agent": {"Mozilla/5.0 (X11)"}, "X-Forwarded-For": {"192.0.2.1"}}},
		{"selected headers", request("192.0.2.1:9", "X-Tenant", "acme", "X-Tenant", "b", "Accept-Language", "fr", "X-Tenants", "c"),
			http.Header{"X-Tenant": {"acme", "b"}, "Accept-Language": {"fr"}, "X-Forwarded-For": {"192.0.2.1"}}},
		{"a selected header that is hop-by-hop", request("192.0.2.1:9", "X-Tenant", "acme", "Connection", "x-tenant, User-Agent", "User-Agent", "x"),
			http.Header{"X-Forwarded-For": {"192.0.2.1"}}},
		{"no Host", withoutHost(request("192.0.2.1:9")), http.Header{"X-Forwarded-For": {"192.0.2.1"}, "X-Forwarded-Host": nil}},
		{"an IPv6 address with a zone", request("[fe80::1%eth0]:9"), http.Header{"X-Forwarded-For": {"fe80::1"}}},
		{"Forwarded of a proxy", request("10.1.2.3:9", "Forwarded", "for=198.51.100.1;proto=https", "Forwarded", "for=10.9.9.9"),
			http.Header{"Forwarded": {"for=198.51.100.1;proto=https", "for=10.9.9.9"}, "X-Forwarded-Proto": nil}},
		{"Forwarded and X-Forwarded of a proxy", request("10.1.2.3:9", "Forwarded", "for=198.51.100.1", "X-Forwarded-Host", "app.example", "X-Forwarded-For", "198.51.100.1"),
			http.Header{"Forwarded": {"for=198.51.100.1"}, "X-Forwarded-Host": {"app.example"}, "X-Forwarded-For": {"198.51.100.1"}, "X-Forwarded-Proto": nil}},
		{"nothing else", request("192.0.2.1:9", "X-User-ID", "1", "X-Api-Key", "k", "Last-Event-ID", "1", "Te", "trailers", "Upgrade", "x", "Proxy-Authorization", "y", "Forwarded", "for=1", "Accept-Encoding", "gzip"),
			http.Header{"X-Forwarded-For": {"192.0.2.1"}}},
		{"X-Forwarded from another address", request("192.0.2.1:9", "X-Forwarded-For", "127.0.0.1", "X-Forwarded-Host", "evil.example", "X-Forwarded-Proto", "https", "X-Forwarded-User", "root"),
			http.Header{"X-Forwarded-For": {"192.0.2.1"}}},
		{"a proxy's", request("10.1.2.3:9", "X-Forwarded-For", "198.51.100.1", "X-Forwarded-For", "10.9.9.9", "X-Forwarded-Proto", "https", "X-Forwarded-Port", "443"),
			http.Header{"X-Forwarded-For": {"198.51.100.1", "10.9.9.9"}, "X-Forwarded-Proto": {"https"}, "X-Forwarded-Port": {"443"}}},
		{"a proxy's, as IPv4 in IPv6", request("[::ffff:10.1.2.3]:9", "X-Forwarded-For", "198.51.100.1"),
			http.Header{"X-Forwarded-For": {"198.51.100.1"}}},
		{"hop-by-hop headers", request("10.1.2.3:9", "Connection", "close, X-Forwarded-For, authorization", "X-Forwarded-For", "198.51.100.1", "Authorization", "Bearer x"),
			http.Header{"X-Forwarded-For": {"10.1.2.3"}}},
	}
	for _, test := range tests {
		f.Authenticate(test.request)
		want := always.Clone()
		for name, values := range test.want {
			if want[name] = values; values == nil {
				delete(want, name)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s:\n%v, want\n%v", test.name, got, want)
		}
	}
	if method != "GET" || uri != "/session?from=hub" || host != "app.example:8443" {
		t.Errorf("%s %s of %s", method, uri, host)
	}
	if n := len(tests[0].request.Header); n != 3 {
		t.Errorf("the request was changed: %v", tests[0].request.Header)
	}
}

// Some development servers handle one connection at a time, until it is closed. Another call must not time out because of
// an idle connection.
func TestForwardClosesIdleConnections(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	idle := make(chan time.Duration, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		requests := bufio.NewReader(c)
		for {
			start := time.Now()
			if _, err := http.ReadRequest(requests); err != nil {
				idle <- time.Since(start)
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nContent-Length: 0\r\n\r\n")
		}
	}()
	f := auth.NewForward(auth.ForwardConfig{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}, Timeout: time.Minute, Cache: -1})
	defer f.Close()
	for range 3 { // on the same connection
		if _, err := f.Authenticate(from("42")); err != nil {
			t.Fatal(err)
		}
	}
	if d := <-idle; d > 4*time.Second {
		t.Errorf("the connection was idle for %v, longer than the default timeout of a call", d)
	}
}

func withoutHost(r *http.Request) *http.Request {
	r.Host = ""
	return r
}

// A reconnect storm costs the app one session check per browser: the tabs of a browser have the same cookies and User-Agent.
func TestForwardStormOfTabs(t *testing.T) {
	t.Parallel()
	const browsers, tabs = 500, 20
	app := newApp(t, returnUser)
	f := app.forward(t, auth.ForwardConfig{Cache: time.Hour, Timeout: time.Minute})
	var done sync.WaitGroup
	for i := range browsers * tabs {
		done.Go(func() {
			r := from(fmt.Sprint(i % browsers))
			r.RemoteAddr = fmt.Sprintf("192.0.2.1:%d", 10_000+i)
			r.Header.Set("User-Agent", fmt.Sprint("Browser/", i%browsers%7))
			if _, err := f.Authenticate(r); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if n := app.requests.Load(); n != browsers {
		t.Errorf("%d session checks, want %d", n, browsers)
	}
}

// The hub understands what app servers send, and does not wait for more of a body than it reads.
func TestForwardUnderstandsAppServers(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 1<<20)
	for name, response := range map[string]string{
		"HTTP/1.0":                      "HTTP/1.0 200 OK\r\nX-User-ID: 42\r\n\r\nok",
		"HTTP/1.0 with Keep-Alive":      "HTTP/1.0 200 OK\r\nX-User-ID: 42\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
		"chunked":                       "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"chunked with trailers":         "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nTransfer-Encoding: chunked\r\nTrailer: X-User-ID\r\n\r\n0\r\nX-User-ID: 1\r\n\r\n",
		"an invalid compressed body":    "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
		"a lower-case header":           "HTTP/1.1 200 OK\r\nx-user-id: 42\r\nContent-Length: 0\r\n\r\n",
		"early hints":                   "HTTP/1.1 103 Early Hints\r\nX-User-ID: 1\r\n\r\nHTTP/1.1 200 OK\r\nX-User-ID: 42\r\nContent-Length: 0\r\n\r\n",
		"a cookie":                      "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nSet-Cookie: session=43\r\nContent-Length: 0\r\n\r\n",
		"a large body":                  "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nContent-Length: 1048576\r\n\r\n" + large,
		"a body that is cut off":        "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nContent-Length: 100\r\n\r\nok",
		"a large body without a length": "HTTP/1.1 200 OK\r\nX-User-ID: 42\r\nConnection: close\r\n\r\n" + large,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() { // one connection and one response at a time, as with some development servers
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
						io.WriteString(c, response)
					}
					c.Close()
				}
			}()
			f := auth.NewForward(auth.ForwardConfig{URL: &url.URL{Scheme: "http", Host: l.Addr().String(), Path: "/session"}, Timeout: time.Minute, Cache: -1})
			defer f.Close()
			for range 3 {
				if id, err := f.Authenticate(from("42")); err != nil || id.User != "42" {
					t.Errorf("%+v, %v", id, err)
				}
			}
		})
	}
}

// Concurrent requests with the same headers share one session check.
func TestForwardSharesCallsWithTheSameHeaders(t *testing.T) {
	release := make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { <-release; returnUser(w, r) })
	for _, cache := range []time.Duration{0, time.Minute} {
		app.requests.Store(0)
		f := app.forward(t, auth.ForwardConfig{Timeout: time.Minute, Cache: cache})
		var done sync.WaitGroup
		for i := range 1000 {
			done.Go(func() {
				user := fmt.Sprint(i % 5)
				if id, err := f.Authenticate(from(user)); err != nil || id.User != user {
					t.Errorf("%+v, %v", id, err)
				}
			})
		}
		stop := make(chan bool)
		go func() { // they all wait for the call in flight, or use the cache
			defer close(stop)
			for range 1000 {
				select {
				case release <- true:
				case <-stop:
					return
				}
			}
		}()
		done.Wait()
		stop <- true
		<-stop
		if n := app.requests.Load(); cache > 0 && n != 5 {
			t.Errorf("with a cache for %v the app received %d requests for 5 users", cache, n)
		}
	}
}

func TestForwardCacheKeyContainsAllHeaders(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "42") })
	f := app.forward(t, auth.ForwardConfig{Cache: time.Hour, Headers: []string{"X-Tenant"}, Proxies: auth.Proxies{netip.MustParsePrefix("10.0.0.0/8")}})
	base := func() *http.Request {
		r := httptest.NewRequest("GET", "/events", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header.Set("Cookie", "a=1")
		return r
	}
	changes := map[string]func(r *http.Request){
		"nothing":           func(*http.Request) {},
		"cookie":            func(r *http.Request) { r.Header.Set("Cookie", "a=2") },
		"authorization":     func(r *http.Request) { r.Header.Set("Authorization", "Bearer a") },
		"a to origin":       func(r *http.Request) { r.Header.Set("Origin", "Bearer a") },
		"address":           func(r *http.Request) { r.RemoteAddr = "10.0.0.2:1" },
		"forwarded address": func(r *http.Request) { r.Header.Set("X-Forwarded-For", "1.2.3.4") },
		"two headers":       func(r *http.Request) { r.Header["X-Forwarded-For"] = []string{"1.2.3.4", "5"} },
		"joined header":     func(r *http.Request) { r.Header["X-Forwarded-For"] = []string{"1.2.3.4, 5"} },
		"user agent":        func(r *http.Request) { r.Header.Set("User-Agent", "Mozilla/5.0") },
		"other user agent":  func(r *http.Request) { r.Header.Set("User-Agent", "Mozilla/6.0") },
		"selected header":   func(r *http.Request) { r.Header.Set("X-Tenant", "acme") },
		"Forwarded":         func(r *http.Request) { r.Header.Set("Forwarded", "for=1.2.3.4") },
		"host":              func(r *http.Request) { r.Host = "other.example" },
	}
	for name, change := range changes {
		r := base()
		change(r)
		before := app.requests.Load()
		f.Authenticate(r)
		f.Authenticate(r)
		if n := app.requests.Load() - before; n != 1 {
			t.Errorf("%s: %d session checks, want one", name, n)
		}
	}
	before := app.requests.Load()
	r := base()
	r.RemoteAddr = "10.0.0.1:999"
	r.URL.RawQuery = "topic=x"
	r.Header.Set("Last-Event-ID", "7")
	f.Authenticate(r)
	if app.requests.Load() != before {
		t.Error("a header that is not sent to the app is part of the key")
	}
}

// Azure Application Gateway and (as an option) AWS load balancers add the client's port to X-Forwarded-For. The
// port differs per connection, so the tabs of a user would not share a cache entry.
func TestForwardIgnoresPortsInForwardedFor(t *testing.T) {
	app := newApp(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "42") })
	f := app.forward(t, auth.ForwardConfig{Cache: time.Hour, Proxies: auth.Proxies{netip.MustParsePrefix("10.0.0.0/8")}})
	ask := func(forwardedFor ...string) int64 {
		r := from("42")
		r.RemoteAddr = "10.0.0.1:1"
		r.Header["X-Forwarded-For"] = forwardedFor
		before := app.requests.Load()
		if _, err := f.Authenticate(r); err != nil {
			t.Errorf("%q: %v", forwardedFor, err)
		}
		return app.requests.Load() - before
	}
	for _, test := range []struct {
		values   []string
		requests int64
	}{
		{[]string{"203.0.113.9:50000"}, 1},
		{[]string{"203.0.113.9:50001"}, 0},
		{[]string{"203.0.113.9"}, 0},
		{[]string{"203.0.113.8:50000"}, 1},
		{[]string{"[2001:db8::1]:50000"}, 1},
		{[]string{"[2001:db8::1]:50001"}, 0},
		{[]string{"2001:db8::1:5000"}, 1}, // an address, not a port
		{[]string{"2001:db8::1:5001"}, 1},
		{[]string{"203.0.113.9:1, 198.51.100.1:2"}, 1},
		{[]string{"203.0.113.9:3, 198.51.100.1:4"}, 0},
		{[]string{"203.0.113.9:1", "198.51.100.1:2"}, 1},
		{[]string{"203.0.113.9:3", "198.51.100.1:4"}, 0},
		{[]string{"unknown:1"}, 1},
		{[]string{"unknown:2"}, 1},
	} {
		if n := ask(test.values...); n != test.requests {
			t.Errorf("%q: the app received %d requests, want %d", test.values, n, test.requests)
		}
	}
}

func TestForwardCacheTimeBeginsWithTheCall(t *testing.T) {
	t.Parallel()
	const cache = 100 * time.Millisecond
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(2 * cache) // an app whose response takes longer than the cache time
		returnUser(w, r)
	})
	ask := func(cache time.Duration, r *http.Request, want int64) {
		t.Helper()
		f := app.forward(t, auth.ForwardConfig{Cache: cache, Timeout: time.Minute})
		before := app.requests.Load()
		for range 2 {
			if _, err := f.Authenticate(r); err != nil && !errors.Is(err, auth.ErrUnauthorized) {
				t.Fatal(err)
			}
		}
		if n := app.requests.Load() - before; n != want {
			t.Errorf("with a cache for %v the app received %d requests, want %d", cache, n, want)
		}
	}
	ask(time.Hour, from("42"), 1)
	ask(cache, from("42"), 2)
	ask(0, from("42"), 2)
	ask(time.Hour, httptest.NewRequest("GET", "/events", nil), 2) // only accepted calls are cached
}

func TestForwardForgetsUsers(t *testing.T) {
	release := make(chan bool, 100)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { <-release; returnUser(w, r) })
	f := app.forward(t, auth.ForwardConfig{Cache: time.Hour, Timeout: time.Minute})
	ask := func(user, session string, want int64) {
		t.Helper()
		r := from(user)
		r.Header.Set("Authorization", session)
		before := app.requests.Load()
		release <- true
		if _, err := f.Authenticate(r); err != nil {
			t.Fatal(err)
		}
		if n := app.requests.Load() - before; n != want {
			t.Errorf("user %s, session %s: %d requests, want %d", user, session, n, want)
		} else if n == 0 {
			<-release
		}
	}
	ask("1", "a", 1)
	ask("1", "b", 1)
	ask("2", "a", 1)
	ask("1", "a", 0)
	f.Forget("1")
	ask("1", "a", 1)
	ask("1", "b", 1)
	ask("2", "a", 0)
	f.Forget("3")
	ask("2", "a", 0)

	// The result of a call in flight is discarded, and one new call is sent for all waiting requests.
	for len(app.came) > 0 {
		<-app.came
	}
	answered := make(chan error, 2)
	ask9 := func() { _, err := f.Authenticate(from("9")); answered <- err }
	go ask9()
	<-app.came
	before := app.requests.Load()
	f.Forget("9")
	go ask9()
	release <- true
	<-app.came
	release <- true
	for range 2 {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	if n := app.requests.Load() - before; n != 1 && n != 2 { // a request may have arrived after the first response
		t.Errorf("%d session checks after the disconnect", n)
	}
}

// A call is not sent if all its requests have ended, and does not delay others: a client can reset streams faster
// than any app responds.
func TestForwardDoesNotSendAbandonedCalls(t *testing.T) {
	release := make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { <-release; returnUser(w, r) })
	f := app.forward(t, auth.ForwardConfig{Timeout: time.Minute, Concurrency: 1})
	answered := make(chan error, 1)
	go func() { _, err := f.Authenticate(from("first")); answered <- err }()
	<-app.came
	goroutines := runtime.NumGoroutine()
	for i := range 10_000 {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := f.Authenticate(from(fmt.Sprint(i)).WithContext(ctx)); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > goroutines+10; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left", runtime.NumGoroutine()-goroutines)
		}
	}
	// One of two requests that wait for the same call remains.
	ctx, cancel := context.WithCancel(context.Background())
	left := make(chan error)
	go func() { _, err := f.Authenticate(from("second").WithContext(ctx)); left <- err }()
	go func() { _, err := f.Authenticate(from("second")); answered <- err }()
	cancel()
	<-left
	release <- true
	release <- true
	for range 2 {
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	if n := app.requests.Load(); n != 2 {
		t.Errorf("the app received %d requests, want 2", n)
	}
}

// A rejection closes the stream of a page permanently. If the app decided it before the request arrived, it may be
// older than the login, because some frameworks keep the session id and thus the cookie.
func TestForwardRejectionIsNotOlderThanTheRequest(t *testing.T) {
	var loggedIn atomic.Bool
	release := make(chan bool)
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		yes := loggedIn.Load()
		<-release
		if !yes {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		returnUser(w, r)
	})
	f := app.forward(t, auth.ForwardConfig{Timeout: time.Minute})
	before, after := make(chan error), make(chan error)
	go func() { _, err := f.Authenticate(from("42")); before <- err }()
	<-app.came // and is rejected
	loggedIn.Store(true)
	go func() { _, err := f.Authenticate(from("42")); after <- err }()
	for f.Waiting(from("42")) < 2 {
		runtime.Gosched()
	}
	release <- true
	if err := <-before; !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("before the login: %v, want ErrUnauthorized", err)
	}
	select {
	case release <- true:
	case err := <-after:
		t.Fatalf("after the login, without a request to the app: %v", err)
	}
	if err := <-after; err != nil {
		t.Errorf("after the login: %v", err)
	}
}

// An identity that was decided before the request arrived is marked as cached.
func TestForwardMarksCachedIdentities(t *testing.T) {
	var topics atomic.Value
	topics.Store("a")
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-User-Topics", topics.Load().(string))
		returnUser(w, r)
	})
	f := app.forward(t, auth.ForwardConfig{Cache: time.Hour})
	first, err := f.Authenticate(from("42"))
	if err != nil || first.Cached {
		t.Fatalf("%+v, %v", first, err)
	}
	topics.Store("a, b")
	second, err := f.Authenticate(from("42"))
	if err != nil || !second.Cached || len(second.Topics) != 1 {
		t.Fatalf("%+v, %v", second, err)
	}
	fresh, err := second.Recheck.Ask(t.Context())
	if err != nil || fresh.Cached || len(fresh.Topics) != 2 {
		t.Errorf("second authentication: %+v, %v", fresh, err)
	}
}

// After a disconnect, the identities of the user are due for a recheck. A recheck does not use the cache, and a
// rejection removes the cached identity.
func TestForwardRecheckAfterADisconnect(t *testing.T) {
	var ended atomic.Bool
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if ended.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		returnUser(w, r)
	})
	f := app.forward(t, auth.ForwardConfig{Cache: time.Hour})
	if id, err := f.Authenticate(from("42")); err != nil || id.Recheck.Due {
		t.Fatalf("before the disconnect: %+v, %v", id, err)
	}
	f.Forget("42")
	id, err := f.Authenticate(from("42"))
	if err != nil || !id.Recheck.Due || id.Recheck.Bytes < len("Cookie")+len("user=42") {
		t.Fatalf("after the disconnect: %+v, %v", id, err)
	}
	ended.Store(true)
	if cached, err := f.Authenticate(from("42")); err != nil || !cached.Recheck.Due {
		t.Errorf("a cached answer after the disconnect: %+v, %v", cached, err)
	}
	if _, err := id.Recheck.Ask(t.Context()); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("the second check: %v, want ErrUnauthorized", err)
	}
	if _, err := f.Authenticate(from("42")); !errors.Is(err, auth.ErrUnauthorized) {
		t.Errorf("after the second check: %v, want ErrUnauthorized", err)
	}
	f.Close()
	if _, err := id.Recheck.Ask(t.Context()); err == nil || isPermanent(err) {
		t.Errorf("after Close: %v, want a temporary error", err)
	}
}

func TestForwardTimeout(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var works atomic.Bool
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if works.Load() {
			returnUser(w, r)
			return
		}
		<-r.Context().Done()
	})
	f := app.forward(t, auth.ForwardConfig{Timeout: time.Second, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		if _, err := f.Authenticate(from("42")); !errors.Is(err, context.DeadlineExceeded) || isPermanent(err) || strings.Contains(err.Error(), app.URL) {
			t.Errorf("got %v, want a deadline that was exceeded", err)
		}
	}
	works.Store(true)
	if _, err := f.Authenticate(from("42")); err != nil {
		t.Error(err)
	}
	f.Close()                                                                                                     // waits for the goroutine that logs
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || strings.Count(log.String(), "level=INFO") != 0 { // the recovery was too short to be logged
		t.Errorf("logged:\n%s", log.String())
	}
}

// The timeout begins when a call is sent: a long queue does not mean that the app is slow.
func TestForwardTimeoutExcludesTheQueue(t *testing.T) {
	t.Parallel()
	const users, limit, answer, timeout = 60, 2, 50 * time.Millisecond, time.Second // 1.5 s for all
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) { time.Sleep(answer); returnUser(w, r) })
	f := app.forward(t, auth.ForwardConfig{Timeout: timeout, Concurrency: limit})
	var done sync.WaitGroup
	for i := range users {
		done.Go(func() {
			if _, err := f.Authenticate(from(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	if n := app.most.Load(); n > limit {
		t.Errorf("%d concurrent session checks, want at most %d", n, limit)
	}
}

func TestForwardClose(t *testing.T) {
	app := newApp(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f := app.forward(t, auth.ForwardConfig{Timeout: time.Hour, Concurrency: 1})
	answered := make(chan error, 2)
	for i := range 2 { // one of them is queued
		go func() { _, err := f.Authenticate(from(fmt.Sprint(i))); answered <- err }()
	}
	<-app.came
	f.Close()
	for range 2 {
		if err := <-answered; err == nil || isPermanent(err) {
			t.Errorf("got %v, want a temporary error", err)
		}
	}
	if _, err := f.Authenticate(from("late")); err == nil || isPermanent(err) {
		t.Errorf("got %v, want a temporary error", err)
	}
}

func TestForwardReturnsWhenTheRequestEnds(t *testing.T) {
	app := newApp(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	f := app.forward(t, auth.ForwardConfig{Timeout: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.Authenticate(from("42").WithContext(ctx)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestForwardVerifiesTLS(t *testing.T) {
	app := httptest.NewUnstartedServer(http.HandlerFunc(returnUser))
	app.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	app.StartTLS()
	defer app.Close()
	u, _ := url.Parse(app.URL)
	f := auth.NewForward(auth.ForwardConfig{URL: u, Cache: -1})
	defer f.Close()
	if id, err := f.Authenticate(from("42")); err == nil || isPermanent(err) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("%+v, %v; want an unknown authority", id, err)
	}
}

// The password in the URL is sent to the app, but does not occur in errors and logs.
func TestForwardPasswordInTheURL(t *testing.T) {
	var got []string
	app := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		io.WriteString(w, "x")
	})
	u, _ := url.Parse(app.URL)
	u.User = url.UserPassword("hub", "s3cret")
	f := app.forward(t, auth.ForwardConfig{URL: u})
	r := from("42")
	f.Authenticate(r)
	r.Header.Set("Authorization", "Bearer x")
	f.Authenticate(r)
	if want := []string{"Basic aHViOnMzY3JldA==", "Bearer x"}; !slices.Equal(got, want) {
		t.Errorf("sent %q, want %q", got, want)
	}
	app.Close()
	if _, err := f.Authenticate(r); err == nil || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("got %v", err)
	}
}
