package auth_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"usercast/auth"
	"usercast/internal/unixsocket"
)

// respond returns a handler that responds with a status and a page.
func respond(status int, page string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, page)
	}
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", strings.NewReplacer("HOST", r.Host, "FORWARDED", r.Header.Get("X-Forwarded-Host")).Replace(to))
		w.WriteHeader(http.StatusMovedPermanently)
	}
}

// The hint of an error names the flag or setting that would accept the session check.
func TestForwardHints(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer      http.HandlerFunc
		err         error
		permanent   bool
		hint, hint2 string
	}{
		"Rails":            {respond(403, "<h1>Blocked host: HOST</h1>"), auth.ErrHostRejected, true, "set --forward-host", "add 127.0.0.1:"},
		"Django, DEBUG":    {respond(400, "DisallowedHost at /\nInvalid HTTP_HOST header: 'x'. You may need to add"), auth.ErrHostRejected, false, "set --forward-host", ""},
		"Django, quoted":   {respond(403, "Invalid HTTP_HOST header"), auth.ErrForbidden, true, "has not accepted any session check yet", "set --forward-host"},
		"Django":           {respond(400, "<h1>Bad Request (400)</h1>"), nil, false, "if the app does not accept the Host 127.0.0.1:", "set --forward-host"},
		"ASP.NET":          {respond(400, "<h2>Bad Request - Invalid Hostname</h2>"), auth.ErrHostRejected, false, "set --forward-host", ""},
		"Laravel":          {respond(404, `{"message":"Bad hostname provided."}`), auth.ErrHostRejected, false, "set --forward-host", ""},
		"a 404":            {respond(404, "Not Found"), nil, false, "", ""},
		"misdirected":      {respond(421, ""), auth.ErrHostRejected, false, "set --forward-host", ""},
		"not about a host": {respond(403, "Forbidden"), auth.ErrForbidden, true, "has not accepted any session check yet", "set --forward-host"},
		"about a host, but accepted": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-User-ID", "")
			fmt.Fprint(w, "Blocked host")
		}, auth.ErrUnauthorized, true, "return 401 for visitors", ""},
		"no user": {respond(200, ""), nil, false, "set X-User-ID, or set --user-header", ""},
		"a user of Node": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "M\xfcller") }, auth.ErrBadUser, true,
			"send ids, topics and groups in UTF-8", `Buffer.from(id).toString("latin1")`},
		"HTTPS":              {redirect("https://HOST/session?from=hub"), auth.ErrForcesHTTPS, true, "set --trusted-proxy", ""},
		"HTTPS, other host":  {redirect("https://FORWARDED/session"), auth.ErrForcesHTTPS, true, "set --trusted-proxy", ""},
		"slash":              {redirect("/session/"), auth.ErrRedirected, true, "set the path of --forward-url to /session/", ""},
		"canonical host":     {redirect("http://www.app.example/session"), auth.ErrRedirected, true, "set --forward-host www.app.example", ""},
		"host of the client": {redirect("http://FORWARDED/session"), auth.ErrRedirected, true, "", ""},
		"login page":         {redirect("/login"), auth.ErrRedirected, true, "", ""},
		"login page, HTTPS":  {redirect("https://sso.example/login"), auth.ErrRedirected, true, "", ""},
	} {
		_, err := newApp(t, c.answer).forward(t, auth.ForwardConfig{Timeout: time.Minute}).Authenticate(from("42"))
		hint := auth.Hint(err)
		if err == nil || c.err != nil && !errors.Is(err, c.err) || isPermanent(err) != c.permanent {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if !strings.Contains(hint, c.hint) || !strings.Contains(hint, c.hint2) || c.hint == "" && hint != "" {
			t.Errorf("%s: hint %q, want %q", name, hint, c.hint)
		}
		if c.err != auth.ErrForcesHTTPS && errors.Is(err, auth.ErrForcesHTTPS) || c.err != auth.ErrHostRejected && errors.Is(err, auth.ErrHostRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// If the app redirects to https although the hub reports https, the app must trust the hub, not the hub the proxy.
func TestForwardHintForAnAppThatIgnoresTheScheme(t *testing.T) {
	t.Parallel()
	f := newApp(t, redirect("https://HOST/session")).forward(t, auth.ForwardConfig{Timeout: time.Minute, Proxies: auth.Proxies{netip.MustParsePrefix("192.0.2.1/32")}})
	r := from("42") // from 192.0.2.1
	r.Header.Set("X-Forwarded-Proto", "https")
	if _, err := f.Authenticate(r); !errors.Is(err, auth.ErrForcesHTTPS) || !strings.Contains(auth.Hint(err), "SECURE_PROXY_SSL_HEADER") {
		t.Errorf("%v, hint %q", err, auth.Hint(err))
	}
}

// On a Unix socket, the proxy has no address: the hint for an app that forces https names unix: instead.
func TestForwardHintForAUnixSocket(t *testing.T) {
	t.Parallel()
	f := newApp(t, redirect("https://HOST/session")).forward(t, auth.ForwardConfig{Timeout: time.Minute})
	r := from("42")
	r.RemoteAddr = unixsocket.Peer
	if _, err := f.Authenticate(r); !errors.Is(err, auth.ErrForcesHTTPS) || !strings.Contains(auth.Hint(err), "--trusted-proxy unix:") {
		t.Errorf("%v, hint %q", err, auth.Hint(err))
	}
}

// A 403 of an app that has accepted a user is not about the Host header.
func TestForwardHintOfA403EndsWithTheFirstUser(t *testing.T) {
	t.Parallel()
	f := newApp(t, func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("user"); err != nil || c.Value != "42" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		returnUser(w, r)
	}).forward(t, auth.ForwardConfig{Timeout: time.Minute})
	if _, err := f.Authenticate(from("43")); auth.Hint(err) == "" {
		t.Errorf("before: %v without a hint", err)
	}
	if _, err := f.Authenticate(from("42")); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authenticate(from("43")); !errors.Is(err, auth.ErrForbidden) || auth.Hint(err) != "" {
		t.Errorf("after: %v, hint %q", err, auth.Hint(err))
	}
}

// The log contains each kind of redirect once, and not more kinds than a bound.
func TestForwardLogsEachKindOfRedirectOnce(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var to string
	f := newApp(t, func(w http.ResponseWriter, r *http.Request) { redirect(to)(w, r) }).forward(t,
		auth.ForwardConfig{Timeout: time.Minute, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		for _, to = range []string{"/login", "https://HOST/session", "/session/"} {
			f.Authenticate(from("42"))
		}
	}
	for i := range 20 {
		to = fmt.Sprintf("http://www%d.example/session", i)
		f.Authenticate(from("42"))
	}
	for text, want := range map[string]int{
		"app redirected a session check": 8, "return 401 instead of a redirect": 1, "set --trusted-proxy": 1, "to /session/": 1, "--forward-host www0.example": 1,
	} {
		if n := strings.Count(log.String(), text); n != want {
			t.Errorf("%q: %d times, want %d", text, n, want)
		}
	}
}

// The log distinguishes a session whose check waits for a lock from an app that does not respond.
func TestForwardDiagnosesTimeouts(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer    http.HandlerFunc
		cookie    bool
		want, not string
	}{
		"a locked session": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Cookie") != "" || r.Header.Get("Authorization") != "" {
				<-r.Context().Done()
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
		}, true, "session check timed out for one session", "forward auth unavailable"},
		"an app that does not respond":              {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, true, "forward auth unavailable", "for one session"},
		"an app that does not respond to a visitor": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, false, "forward auth unavailable", "for one session"},
		"an app that fails without cookies": {func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Cookie") != "" {
				<-r.Context().Done()
				return
			}
			w.WriteHeader(http.StatusInternalServerError)
		}, true, "forward auth unavailable", "for one session"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			lines := make(chan string, 100)
			f := newApp(t, c.answer).forward(t, auth.ForwardConfig{Timeout: time.Second, Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.MessageKey {
					lines <- a.Value.String()
				}
				return a
			}}))})
			r := httptest.NewRequest("GET", "/events", nil)
			if c.cookie {
				r = from("42")
				r.Header.Set("Authorization", "Bearer secret")
			}
			if _, err := f.Authenticate(r); err == nil || isPermanent(err) {
				t.Errorf("got %v, want a temporary error", err)
			}
			if line := <-lines; !strings.Contains(line, c.want) {
				t.Errorf("logged %q, want %q", line, c.want)
			}
			f.Close()
			if text := log.String(); strings.Contains(text, c.not) || strings.Contains(text, "secret") || strings.Contains(text, "user=42") || strings.Count(text, "\n") != 1 {
				t.Errorf("logged:\n%s", text)
			}
		})
	}
}

// logLines returns a logger and its lines.
func logLines() (*slog.Logger, <-chan string) {
	lines := make(chan string, 1000) // more than any test logs
	return slog.New(slog.NewTextHandler(lineWriter(lines), nil)), lines
}

type lineWriter chan<- string

func (w lineWriter) Write(line []byte) (int, error) {
	w <- string(line)
	return len(line), nil
}

// Several locked sessions, which take all places of the limiter, are not an app that does not respond.
func TestForwardDiagnosesManyLockedSessions(t *testing.T) {
	t.Parallel()
	for name, addressOf := range map[string]func(i int) string{
		"of several users": func(i int) string { return fmt.Sprintf("10.0.0.%d:1", i) },
		"of one address":   func(int) string { return "10.0.0.1:1" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const sessions = 60
				anonymous := 0
				log, lines := logLines()
				f := auth.NewForward(auth.ForwardConfig{URL: &url.URL{Scheme: "http", Host: "app.example"}, Cache: -1, Logger: log})
				f.SetTransport(roundTripper(func(r *http.Request) (*http.Response, error) {
					if r.Header.Get("Cookie") == "" {
						anonymous++
						return &http.Response{StatusCode: 401, Body: http.NoBody}, nil
					}
					<-r.Context().Done()
					return nil, r.Context().Err()
				}))
				var done sync.WaitGroup
				for i := range sessions {
					r := from(fmt.Sprint(i))
					r.RemoteAddr = addressOf(i)
					done.Go(func() { f.Authenticate(r) })
				}
				done.Wait()
				f.Close()
				if len(lines) != 1 || anonymous == 0 || anonymous > 3 { // within 20 s
					t.Errorf("%d lines after %d checks without credentials", len(lines), anonymous)
				}
				for len(lines) > 0 {
					if line := <-lines; !strings.Contains(line, "session check timed out for one session") || !strings.Contains(line, "timed out after 2s") {
						t.Errorf("logged %s", line)
					}
				}
			})
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// If the cause of an outage changes, such as when the app starts but rejects the Host, the new cause is logged. Its end is
// logged without another success.
func TestForwardLogsEachCauseOfAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var status int
		var ports int
		log, lines := logLines()
		f := auth.NewForward(auth.ForwardConfig{URL: &url.URL{Scheme: "http", Host: "app.example"}, Cache: -1, Logger: log})
		defer f.Close()
		f.SetTransport(roundTripper(func(*http.Request) (*http.Response, error) {
			if status == 0 {
				ports++ // the port of the hub differs per call
				return nil, &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{Port: ports}, Addr: &net.TCPAddr{Port: 80}, Err: syscall.ECONNRESET}
			}
			return &http.Response{StatusCode: status, Header: http.Header{"X-User-Id": {"u"}}, Body: http.NoBody}, nil
		}))
		expect := func(returned int, want string) {
			t.Helper()
			status = returned
			for range 3 {
				f.Authenticate(from("42"))
			}
			if want == "" && len(lines) == 0 {
				return
			}
			if len(lines) != 1 {
				t.Fatalf("status %d: %d lines, want %q", returned, len(lines), want)
			}
			if line := <-lines; want == "" || !strings.Contains(line, want) {
				t.Errorf("status %d: logged %s, want %q", returned, line, want)
			}
		}
		expect(0, "connection reset")
		expect(400, "set --forward-host")
		expect(500, "status 500")
		expect(400, "")
		expect(0, "")
		expect(200, "")
		time.Sleep(10 * time.Second)
		if synctest.Wait(); len(lines) != 1 {
			t.Fatalf("%d lines after the outage", len(lines))
		}
		if line := <-lines; !strings.Contains(line, "forward auth recovered") {
			t.Errorf("logged %s", line)
		}
		expect(500, "status 500")
	})
}
