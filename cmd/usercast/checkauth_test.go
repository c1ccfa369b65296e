package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"usercast/internal/app"
	"usercast/internal/certtest"
	"usercast/internal/hubtest"
	"usercast/internal/proxytest"
	"usercast/internal/redistest"
)

// check sends an unauthenticated request to the server that authenticates users.
func TestCheckAuthenticatesWithoutCredentials(t *testing.T) {
	t.Parallel()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		auth, flag string
		answer     http.HandlerFunc
		want       string
	}{
		{app.AuthForward, "--forward-url", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "1") }, `fail  URL accepts a request without cookies as user "1"`},
		{app.AuthForward, "--forward-url", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }, "ok    URL responds, and rejects unauthenticated requests"},
		{app.AuthForward, "--forward-url", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, "fail  authentication with URL failed: session check returned status 500"},
		{app.AuthJWT, "--jwt-jwks-url", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":%q},{"kty":"RSA","kid":"b","use":"enc"}]}`, base64.RawURLEncoding.EncodeToString(public))
		}, "ok    URL has 1 usable key\n  note  URL: the key \"b\" is not used: use is \"enc\", not \"sig\"\n"},
		{app.AuthJWT, "--jwt-jwks-url", http.NotFound, "fail  --jwt-jwks-url URL: unexpected status 404"},
		{app.AuthJWT, "--jwt-jwks-url", func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"jwks_uri":"https://login.example/keys"}`)
		},
			"fail  --jwt-jwks-url URL: the response is an OpenID configuration; use its jwks_uri: https://login.example/keys"},
	} {
		server := httptest.NewServer(c.answer)
		stdout, _, _ := runCheck(t, anywhere("redis://127.0.0.1:1", "--auth", c.auth, c.flag, server.URL)...)
		server.Close()
		if !strings.Contains(stdout, "\nauthentication\n  "+strings.ReplaceAll(c.want, "URL", server.URL)) {
			t.Errorf("want %q in\n%s", c.want, stdout)
		}
	}
}

// check recognizes an app that rejects the Host of session checks: by its error page, and by its answer to the Host of --url.
func TestCheckRecognizesAnUnknownHost(t *testing.T) {
	t.Parallel()
	accepts := func(host string, status int, page string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.Host != host {
				w.WriteHeader(status)
				fmt.Fprint(w, page)
				return
			}
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		flags  []string
		want   string
	}{
		"an error page":              {accepts("app.example", 403, "Blocked host: x"), nil, "  fail  the app does not accept session checks with the Host HOST\n        → set --forward-host to a host name"},
		"an empty 403":               {accepts("app.example", 403, ""), []string{"--url", "http://app.example/events"}, "  fail  the app rejects session checks with the Host HOST, and accepts the Host app.example\n        → use --forward-host app.example"},
		"400":                        {accepts("app.example", 400, "Bad Request"), []string{"--url", "http://app.example/events"}, "→ use --forward-host app.example"},
		"404":                        {accepts("app.example", 404, ""), []string{"--url", "http://app.example/events"}, "→ use --forward-host app.example"},
		"an empty 403 without --url": {accepts("app.example", 403, ""), nil, "  note  the app returns 403 to a request without cookies; a Rails app in production does that if it does not know the Host HOST\n        → if session checks of logged-in users also return 403, set --forward-host to"},
		"400 without --url":          {accepts("app.example", 400, "Bad Request"), nil, "→ if the app does not accept the Host HOST, set --forward-host"},
		"--forward-host":             {accepts("app.example", 403, ""), []string{"--forward-host", "app.example"}, "responds, and rejects unauthenticated requests"},
		"a 403 for every host":       {accepts("", 403, ""), []string{"--url", "http://app.example/events"}, "responds, and rejects unauthenticated requests"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewServer(c.answer)
			defer server.Close()
			stdout, _, _ := runCheck(t, anywhere("redis://127.0.0.1:1", append([]string{"--auth", "forward", "--timeout", "10s", "--forward-url", server.URL + "/session"}, c.flags...)...)...)
			if want := strings.ReplaceAll(c.want, "HOST", strings.TrimPrefix(server.URL, "http://")); !strings.Contains(stdout, want) {
				t.Errorf("want %q in\n%s", want, stdout)
			}
		})
	}
}

// check distinguishes a session whose check waits for a lock from an app that does not respond.
func TestCheckRecognizesALockedSession(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") != "" {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer server.Close()
	redis := redistest.Start(t)
	flags := []string{"--auth", "forward", "--auth-timeout", "1s", "--forward-url", server.URL, "--ping-interval", "50ms"}
	h := hubtest.Start(t, redis, flags...)
	stdout, _, _ := runCheck(t, anywhere(redis.URL(), append(flags, "--watch", "100ms", "--url", h.PublicURL("/events"), "--header", "Cookie: session=42")...)...)
	if want := "warn  the session check timed out with the cookies of --header, but took only "; !strings.Contains(stdout, want) || !strings.Contains(stdout, "may hold its lock") {
		t.Errorf("want %q in\n%s", want, stdout)
	}
}

// forcesHTTPS starts an app that redirects requests without https, and that has one session. requests returns the
// X-Forwarded-* headers of all requests.
func forcesHTTPS(t *testing.T) (app *httptest.Server, requests func() []string) {
	t.Helper()
	var mu sync.Mutex
	var all []string
	app = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		all = append(all, fmt.Sprint(r.Header.Get("X-Forwarded-Proto"), " ", r.Header.Get("X-Forwarded-Host"), " ", r.Header.Get("X-Forwarded-For")))
		mu.Unlock()
		switch {
		case r.Header.Get("X-Forwarded-Proto") != "https":
			http.Redirect(w, r, "https://"+r.Header.Get("X-Forwarded-Host")+r.URL.Path, http.StatusMovedPermanently)
		case r.Header.Get("Cookie") != "session=42":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			w.Header().Set("X-User-ID", "42")
		}
	}))
	t.Cleanup(app.Close)
	return app, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all)
	}
}

// The session check contains the scheme, host and address that the hub sends for a browser at --url.
func TestCheckAsksTheAppForTheURL(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	app, requests := forcesHTTPS(t)
	flags := []string{"--auth", "forward", "--forward-url", app.URL + "/session", "--ping-interval", "50ms"}
	h, dir := hubtest.StartTLS(t, server, certtest.New(t, "check"), flags...)
	flags = append(flags, "--redis", server.URL(), "--listen", h.PublicAddr(), "--admin-listen", h.AdminAddr(), "--watch", "1s",
		"--tls-cert", filepath.Join(dir, "cert.pem"), "--tls-key", filepath.Join(dir, "key.pem"), "--url", h.SecureURL("/events"))
	p := hubtest.StartProgram(t, []string{"SSL_CERT_FILE=" + filepath.Join(dir, "cert.pem"), "USERCAST_HEADER=Cookie: session=42"}, append([]string{"check"}, flags...)...)
	code, stdout := p.Wait(t), p.Stdout.String()
	for _, want := range []string{"  ok    " + app.URL + "/session responds, and rejects unauthenticated requests", "3 events, published", "received pings"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d, no %q in\n%s", code, want, stdout)
		}
	}
	if strings.Contains(stdout, "redirect") {
		t.Errorf("a false warning:\n%s", stdout)
	}
	for _, got := range requests() {
		if want := "https " + h.PublicAddr() + " 127.0.0.1"; got != want {
			t.Errorf("the app received a request for %q, want %q", got, want)
		}
	}
}

// Behind a proxy that terminates TLS, the hub forwards the headers of the proxy if it trusts the proxy.
func TestCheckKnowsWhatTheHubSendsToTheApp(t *testing.T) {
	t.Parallel()
	app, _ := forcesHTTPS(t)
	flags := anywhere("redis://127.0.0.1:1", "--auth", "forward", "--forward-url", app.URL+"/session")
	for name, c := range map[string]struct {
		flags []string
		want  string
	}{
		"a trusted proxy":  {[]string{"--url", "https://127.0.0.1:1/events", "--trusted-proxy", "127.0.0.1"}, "  ok    " + app.URL + "/session responds, and rejects unauthenticated requests"},
		"no trusted proxy": {[]string{"--url", "https://127.0.0.1:1/events"}, "  warn  " + app.URL + "/session redirects to https:// because this hub reports http:// as the scheme of the browser\n        → use --trusted-proxy <address of the proxy>"},
		"cleartext":        {[]string{"--url", "http://127.0.0.1:1/events"}, "  warn  " + app.URL + "/session redirects unauthenticated requests"},
		"no URL":           {nil, "run check with --url https://"},
	} {
		stdout, _, _ := runCheck(t, slices.Concat(flags, c.flags)...)
		if !strings.Contains(stdout, c.want) {
			t.Errorf("%s: no %q in\n%s", name, c.want, stdout)
		}
	}
}

// check publishes to a topic that the user is allowed to see.
func TestCheckPublishesToAnAllowedTopic(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	topics := make(chan string, 1) // of the next responses
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Cookie") == "" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		t := <-topics
		topics <- t
		w.Header().Set("X-User-ID", "42")
		w.Header().Set("X-User-Topics", t)
	}))
	defer app.Close()
	flags := []string{"--auth", "forward", "--auth-cache", "0", "--forward-url", app.URL, "--ping-interval", "50ms"}
	h := hubtest.Start(t, server, flags...)
	flags = append(flags, "--redis", server.URL(), "--listen", h.PublicAddr(), "--admin-listen", h.AdminAddr(), "--watch", "1s", "--url", "http://"+h.PublicAddr()+"/events", "--header", "Cookie: session=42")
	for list, want := range map[string]string{"news, chat": "3 events, published", "": "this user is not allowed to see any topic"} {
		topics <- list
		stdout, _, code := runCheck(t, flags...)
		<-topics
		if code != 0 || !strings.Contains(stdout, want) || !strings.Contains(stdout, "received pings") {
			t.Errorf("topics %q: exit code %d, no %q in\n%s", list, code, want, stdout)
		}
	}
}

// check shows the groups of the user whose stream it opens.
func TestCheckShowsGroups(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("secret", 8)
	server := redistest.Start(t)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-User-ID", "42")
		w.Header().Set("X-User-Groups", r.Header.Get("Authorization"))
	}))
	t.Cleanup(app.Close)
	token := func(groups ...string) string {
		return "Cookie: usercast=" + hubtest.Token(t, secret, map[string]any{"sub": "42", "exp": 9e9, "groups": groups})
	}
	jwt, forward := []string{"--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, secret)}, []string{"--auth", "forward", "--forward-url", app.URL}
	// With the stream feed, check does not wait for markers.
	without := func(flags []string) []string {
		return append([]string{"--feed", "stream", "--ping-interval", "50ms"}, flags...)
	}
	with := func(flags []string) []string { return append(without(flags), "--group-prefix", "group-") }
	for name, c := range map[string]struct {
		hub    []string
		query  string
		header string
		want   string // "": nothing about groups
		code   int
	}{
		"insecure":       {with(nil), "?user=42&group=b&group=a", "", `ok    the user of this stream is a member of 2 groups: "b", "a"`, 0},
		"jwt":            {with(jwt), "", token("a, b"), `ok    the user of this stream is a member of 1 group: "a, b"`, 0},
		"forward":        {with(forward), "", "Authorization: 1,2,3,4,5,6", `of this stream is a member of 6 groups: "1", "2", "3", "4", "5", …` + "\n", 1}, // accepts everyone
		"forward, all":   {with(forward), "", "Authorization: *", "invalid group \"*\": * does not stand for all groups\n        → list each group; * is always reserved", 1},
		"no groups":      {with(jwt), "", token(), "note  the user of this stream is not a member of any group\n        → if the user should be a member of a group, set --jwt-groups-claim", 0},
		"an unusable":    {with(jwt), "", token("a:b"), `the hub returned 403 Forbidden: invalid group "a:b": it contains ':', which separates group and topic (--topic-separator)` + "\n        → set --topic-separator to a character", 1},
		"not a list":     {with(append(jwt, "--jwt-groups-claim", "sub")), "", token("a"), "401 Unauthorized: not authenticated: the token's sub claim is not a list of strings and integers\n        → set --jwt-groups-claim to a claim with a list", 1},
		"too many":       {with(append(jwt, "--max-groups", "1")), "", token("a", "b"), "the hub returned 403 Forbidden: this user is a member of 2 groups, and at most 1 are allowed (--max-groups)\n        → list only the groups whose messages pages receive, or raise --max-groups", 1},
		"of all":         {with(nil), "?user=42&group=*", "", "invalid group \"*\": * does not stand for all groups\n        → list each group; * is always reserved", 1},
		"without groups": {without(jwt), "", token("a"), "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hubtest.Start(t, server, c.hub...)
			flags := append([]string{"--auth", "insecure"}, c.hub...)
			flags = append(flags, "--redis", server.URL(), "--listen", h.PublicAddr(), "--admin-listen", h.AdminAddr(), "--watch", "200ms", "--url", "http://"+h.PublicAddr()+"/events"+c.query)
			if c.header != "" {
				flags = append(flags, "--header", c.header)
			}
			stdout, _, code := runCheck(t, flags...)
			if code != c.code || !strings.Contains(stdout, c.want) || !strings.Contains(c.want, "of this stream") && strings.Contains(stdout, "of this stream is a") {
				t.Errorf("exit code %d, no %q in\n%s", code, c.want, stdout)
			}
		})
	}
}

// With --auth header, check finds out whether a browser can choose its groups.
func TestCheckFindsAProxyThatPassesOnGroups(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	flags := []string{"--feed", "stream", "--auth", "header", "--trusted-proxy", "127.0.0.1", "--group-prefix", "group-", "--ping-interval", "50ms"}
	h := hubtest.Start(t, server, flags...)
	const passes, safe = "fail  the proxy passes on X-User-Groups of the browser", "ok    the proxy does not pass on X-User-Groups of the browser"
	for name, c := range map[string]struct{ location, header, want string }{
		"passes on":      {"proxy_set_header X-User-ID 42;", "", passes},
		"adds":           {"proxy_set_header X-User-ID 42; proxy_set_header X-User-Groups \"$http_x_user_groups, team-7\";", "", passes},
		"removes":        {`proxy_set_header X-User-ID 42; proxy_set_header X-User-Groups "";`, "", safe},
		"sets":           {"proxy_set_header X-User-ID 42; proxy_set_header X-User-Groups team-7;", "", safe},
		"sets no user":   {"", "", ""},
		"is not a proxy": {"", "X-User-ID: 42", ""},
		"unusable":       {"proxy_set_header X-User-ID 42; proxy_set_header X-User-Groups a:b;", "", "which separates group and topic (--topic-separator)\n        → change what authentication returns for this user; the log of the hub has a hint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := proxytest.Nginx(t, "server { listen "+proxytest.Listen+"; location / { proxy_pass http://"+h.PublicAddr()+"; proxy_set_header Host $http_host; "+c.location+" } }")
			more := []string{"--redis", server.URL(), "--listen", h.PublicAddr(), "--admin-listen", h.AdminAddr(), "--watch", "200ms", "--url", "http://" + proxy + "/events"}
			if c.header != "" {
				more = append(more, "--header", c.header)
			}
			stdout, _, _ := runCheck(t, slices.Concat(flags, more)...)
			if !strings.Contains(stdout, c.want) || c.want == "" && (strings.Contains(stdout, passes) || strings.Contains(stdout, safe)) {
				t.Errorf("no %q in\n%s", c.want, stdout)
			}
		})
	}
}

// For a request that the hub rejects, check advises as the log of the hub, unless the request lacks credentials.
func TestCheckAdvisesAsTheLogOfTheHub(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("secret", 8)
	server := redistest.Start(t)
	flags := []string{"--feed", "stream", "--ping-interval", "50ms", "--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, secret), "--jwt-issuer", "app"}
	h := hubtest.Start(t, server, flags...)
	token := func(claims map[string]any) string {
		return "Cookie: usercast=" + hubtest.Token(t, secret, claims)
	}
	for name, c := range map[string]struct {
		header string
		flags  []string // only of check
		want   string
	}{
		"no token":       {"", nil, "no token in the request\n        → use --header 'Cookie: usercast=…'"},
		"another cookie": {"Cookie: session=1", nil, "no token in the request\n        → set --jwt-cookie to the name of the cookie"},
		"another issuer": {token(map[string]any{"sub": "42", "exp": 9e9, "iss": "x"}), nil, "from another issuer\n        → set --jwt-issuer to the iss claim of the tokens"},
		"all users":      {token(map[string]any{"sub": "*", "exp": 9e9, "iss": "app"}), nil, "* stands for all users\n        → use another id for this user"},
		"set user":       {token(map[string]any{"sub": "*", "exp": 9e9, "iss": "app"}), []string{"--user", "42"}, "* stands for all users\n        → use another id for this user"},
		"another reason": {token(map[string]any{"sub": "42", "exp": 9e9, "iss": "x"}), []string{"--jwt-issuer", "x"}, "from another issuer\n        → use --header 'Cookie: usercast=…'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := slices.Concat(flags, []string{"--redis", server.URL(), "--listen", h.PublicAddr(), "--admin-listen", h.AdminAddr(), "--watch", "200ms", "--url", "http://" + h.PublicAddr() + "/events"}, c.flags)
			if c.header != "" {
				all = append(all, "--header", c.header)
			}
			if stdout, _, code := runCheck(t, all...); code != 1 || !strings.Contains(stdout, c.want) {
				t.Errorf("exit code %d, no %q in\n%s", code, c.want, stdout)
			}
		})
	}
}
