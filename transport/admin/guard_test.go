package admin_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"usercast/hub"
	"usercast/transport/admin"
	"usercast/transport/admin/console"
)

const (
	token    = "correct-horse"
	apiToken = "battery-staple"
)

// tokens returns fixed tokens; "" is not configured.
func tokens(adminToken, apiToken string) admin.Tokens {
	return admin.Tokens{Admin: func() string { return adminToken }, API: func() string { return apiToken }}
}

func mounted(token string) *echo.Echo { return mountedWith(tokens(token, "")) }

func mountedWith(tokens admin.Tokens) *echo.Echo {
	e := admin.NewEcho()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "usercast_clients 0\n") })
	admin.Mount(e, func() admin.Status { return ready }, metrics, tokens)
	return e
}

func TestWithoutTokenOnlyThisMachineIsAccepted(t *testing.T) {
	e := mounted("")
	for _, test := range []struct {
		peer, host string
		ok         bool
	}{
		{"127.0.0.1:40000", "127.0.0.1:8081", true},
		{"127.0.0.1:40000", "127.0.0.1", true},
		{"127.8.9.1:40000", "localhost:8081", true},
		{"127.0.0.1:40000", "LocalHost", true},
		{"[::1]:40000", "[::1]:8081", true},
		{"[::1]:40000", "[::1]", true},
		{"[::ffff:127.0.0.1]:40000", "127.0.0.1:8081", true}, // a dual-stack listener's IPv4 peer

		{"127.0.0.1:40000", "rebound.example:8081", false}, // DNS rebinding
		{"127.0.0.1:40000", "127.0.0.1.example", false},
		{"127.0.0.1:40000", "localhost.example", false},
		{"127.0.0.1:40000", "10.0.0.1:8081", false},
		{"127.0.0.1:40000", "[2001:db8::1]:8081", false},
		{"127.0.0.1:40000", "", false},
		{"10.0.0.9:40000", "127.0.0.1:8081", false}, // a peer may claim any Host
		{"[2001:db8::9]:40000", "[::1]:8081", false},
		{"[::ffff:10.0.0.9]:40000", "localhost", false},
		{"", "localhost", false},
		{"unix:", "localhost", true},
		{"unix:", "rebound.example", false},
		{"unix:x", "localhost", false},
	} {
		answer := ask(e, "GET", "/debug/pprof/", func(r *http.Request) { r.RemoteAddr, r.Host = test.peer, test.host })
		if want := map[bool]int{true: 200, false: 403}[test.ok]; answer.Code != want {
			t.Errorf("peer %s, host %q: %d, want %d", test.peer, test.host, answer.Code, want)
		}
		if !test.ok && !strings.Contains(answer.Body.String(), "--admin-token-file") {
			t.Errorf("peer %s, host %q: %q does not say what to do", test.peer, test.host, answer.Body)
		}
	}
}

// Requests through a proxy on this machine come from a loopback address, regardless of the client.
func TestWithoutTokenProxiesAreRejected(t *testing.T) {
	for _, header := range []string{"X-Forwarded-For: 203.0.113.9", "Forwarded: for=203.0.113.9", "Via: 1.1 proxy", "X-Real-IP: 203.0.113.9", "X-Forwarded-Proto: https"} {
		name, value, _ := strings.Cut(header, ": ")
		change := func(r *http.Request) { r.Header.Set(name, value) }
		if answer := ask(mounted(""), "GET", "/debug/pprof/", change); answer.Code != 403 {
			t.Errorf("%s: %d, want 403", header, answer.Code)
		}
		if answer := ask(mounted(""), "GET", "/metrics", change); answer.Code != 200 {
			t.Errorf("%s: /metrics is answered with %d", header, answer.Code)
		}
	}
}

func TestWithTokenOnlyTheTokenIsAccepted(t *testing.T) {
	e := mounted(token)
	for _, test := range []struct {
		name, authorization string
		ok                  bool
	}{
		{"right", "Bearer " + token, true},
		{"the scheme in lower case", "bearer " + token, true},
		{"missing", "", false},
		{"empty", "Bearer ", false},
		{"wrong", "Bearer wrong", false},
		{"a prefix of it", "Bearer " + token[:4], false},
		{"longer than it", "Bearer " + token + "x", false},
		{"in another case", "Bearer " + strings.ToUpper(token), false},
		{"another scheme", "Basic " + token, false},
		{"no scheme", token, false},
		{"two spaces", "Bearer  " + token, false},
	} {
		for _, peer := range []string{"127.0.0.1:40000", "10.0.0.9:40000"} {
			answer := ask(e, "GET", "/debug/pprof/", func(r *http.Request) {
				r.RemoteAddr, r.Host = peer, "usercast.example"
				r.Header.Set("Authorization", test.authorization)
			})
			want := 401
			if test.ok {
				want = 200
			}
			if answer.Code != want {
				t.Errorf("%s, from %s: %d, want %d", test.name, peer, answer.Code, want)
			}
			if !test.ok && answer.Header().Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%s: WWW-Authenticate is %q", test.name, answer.Header().Get("WWW-Authenticate"))
			}
			if strings.Contains(answer.Body.String(), token) {
				t.Errorf("%s: the response contains the token", test.name)
			}
		}
	}
}

// Prometheus and load balancers send requests from other hosts, without a token.
func TestMetricsAndHealthAreOpen(t *testing.T) {
	for _, token := range []string{"", token} {
		e := mounted(token)
		for _, path := range []string{"/metrics", "/livez", "/readyz"} {
			answer := ask(e, "GET", path, func(r *http.Request) { r.RemoteAddr, r.Host = "10.0.0.9:40000", "usercast:8081" })
			if answer.Code != 200 {
				t.Errorf("%s: %d with token %q", path, answer.Code, token)
			}
		}
	}
}

// stubAPI returns an API whose operations succeed.
func stubAPI() admin.API {
	return admin.API{
		Streams:    func(hub.Recipient, int) ([]admin.Stream, int) { return []admin.Stream{}, 0 },
		Disconnect: func(context.Context, string) (admin.Receipt, error) { return admin.Receipt{}, nil },
		Publish:    func(context.Context, admin.Publication) (admin.Receipt, error) { return admin.Receipt{}, nil },
		PublishAll: func(_ context.Context, m []admin.Publication) (int, error) { return len(m), nil },
		Position:   func(context.Context, string) (string, error) { return "m-1", nil },
		Groups:     true, MaxPayload: 100,
	}
}

// everything mounts all routes.
func everything(tokens admin.Tokens) *echo.Echo {
	e := mountedWith(tokens)
	admin.MountAPI(e, stubAPI(), tokens)
	admin.MountOnline(e, admin.Presence{
		Online: func(context.Context, []string) ([]string, error) { return nil, nil },
		Count:  func(context.Context) (int, error) { return 0, nil },
	}, tokens)
	done := make(chan struct{})
	close(done) // streams end immediately
	admin.MountConsole(e, admin.Console{Stats: func() any { return 0 }, Done: done}, tokens)
	return e
}

// open lists what every client may request, and forApps what the API token allows.
var (
	open    = []string{"GET /metrics", "GET /livez", "GET /readyz", "HEAD /metrics", "HEAD /livez", "HEAD /readyz"}
	forApps = []string{"POST /api/users/42/messages", "POST /api/groups/42/messages", "POST /api/messages", "GET /api/users/42/position", "GET /api/online"}
)

// routes returns all routes as method and path, with a name in the place of each parameter. A CPU profile would take 30 s.
func routes(e *echo.Echo) (list []string) {
	for _, route := range e.Routes() {
		path := strings.NewReplacer(":name", "42", "*", "heap").Replace(route.Path)
		if route.Path != "/debug/pprof/profile" && route.Path != "/debug/pprof/trace" {
			list = append(list, route.Method+" "+path)
		}
	}
	return list
}

// The table of every route, for each pair of configured tokens, each presented token and each peer.
func TestEachTokenOpensOnlyItsRoutes(t *testing.T) {
	t.Parallel()
	for _, configured := range []struct{ admin, api string }{{"", ""}, {token, ""}, {"", apiToken}, {token, apiToken}} {
		e := everything(tokens(configured.admin, configured.api))
		list, found := routes(e), 0
		for _, route := range list {
			isForApps := slices.Contains(forApps, route)
			if isForApps {
				found++
			}
			required := []string{configured.admin}
			if isForApps {
				required = append(required, configured.api)
			}
			required = slices.DeleteFunc(required, func(token string) bool { return token == "" })
			for _, presented := range []string{"", "wrong", token, apiToken} {
				for _, local := range []bool{true, false} {
					method, path, _ := strings.Cut(route, " ")
					answer := ask(e, method, path, func(r *http.Request) {
						if r.RemoteAddr, r.Host = "127.0.0.1:40000", "127.0.0.1:8081"; !local {
							r.RemoteAddr, r.Host = "10.0.0.9:40000", "usercast.example:8081"
						}
						if presented != "" {
							r.Header.Set("Authorization", "Bearer "+presented)
						}
					})
					want := 200
					switch {
					case slices.Contains(open, route):
					case len(required) > 0 && !slices.Contains(required, presented):
						want = 401
					case len(required) == 0 && !local:
						want = 403
					case method == echo.RouteNotFound || route == "GET /api/users/42/messages", route == "GET /api/groups/42/messages": // tails are disabled
						want = 404
					}
					if answer.Code != want {
						t.Errorf("with tokens %+v, %s with token %q, on this machine %v: %d, want %d", configured, route, presented, local, answer.Code, want)
					}
					if want == 403 && !strings.Contains(answer.Body.String(), "--admin-token-file") || want == 403 && isForApps && !strings.Contains(answer.Body.String(), "--api-token-file") {
						t.Errorf("%s: %s does not say what to do", route, answer.Body)
					}
				}
			}
		}
		if found != len(forApps) || len(list) < 20 {
			t.Errorf("%d routes for apps among %d, want %d", found, len(list), len(forApps))
		}
	}
}

// All routes are guarded against other clients, in every spelling.
func TestEverythingElseIsGuarded(t *testing.T) {
	t.Parallel()
	loopback := func(r *http.Request) { r.RemoteAddr, r.Host = "127.0.0.1:40000", "127.0.0.1:8081" }
	clients := map[string]struct {
		admin, api string
		change     func(*http.Request)
	}{
		"another machine":    {"", "", func(r *http.Request) { r.RemoteAddr = "10.0.0.9:40000" }},
		"another name":       {"", "", func(r *http.Request) { r.Host = "rebound.example:8081" }},
		"a proxy":            {"", "", func(r *http.Request) { r.Header.Set("Via", "1.1 proxy") }},
		"another site":       {"", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }},
		"a same-site origin": {"", "", func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "same-site") }},
		"another origin":     {"", "", func(r *http.Request) { r.Header.Set("Origin", "http://localhost:3000") }},
		"a sandbox":          {"", "", func(r *http.Request) { r.Header.Set("Origin", "null") }},
		"no token":           {token, apiToken, func(*http.Request) {}},
		"a wrong token":      {token, apiToken, func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }},
		"the empty token":    {token, apiToken, func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }},
		"both tokens":        {token, apiToken, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+apiToken) }},
		"two tokens": {token, apiToken, func(r *http.Request) {
			r.Header["Authorization"] = []string{"Bearer " + token, "Bearer " + apiToken}
		}},
		"a site, with the token": {token, "", func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+token)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}},
		"a site, with the API token": {token, apiToken, func(r *http.Request) {
			r.Header.Set("Authorization", "Bearer "+apiToken)
			r.Header.Set("Sec-Fetch-Site", "cross-site")
		}},
		"another name, with the API token only": {"", apiToken, func(r *http.Request) { r.Host = "rebound.example:8081" }},
		"a proxy, with the API token only":      {"", apiToken, func(r *http.Request) { r.Header.Set("Via", "1.1 proxy") }},
	}
	for name, client := range clients {
		e := everything(tokens(client.admin, client.api))
		for _, route := range routes(e) {
			if slices.Contains(open, route) {
				continue
			}
			method, path, _ := strings.Cut(route, " ")
			answer := ask(e, method, path, func(r *http.Request) { loopback(r); client.change(r) })
			if answer.Code != 401 && answer.Code != 403 {
				t.Errorf("%s: %s is answered with %d", name, route, answer.Code)
			}
			// The only other response to unauthenticated clients is the page that asks for a token.
			if body := answer.Body.String(); !strings.HasPrefix(body, `{"error":"`) && (path != "/" || body != string(console.Get().Body)) {
				t.Errorf("%s: %s responds with %.100q", name, route, body)
			}
		}
		for _, path := range []string{"//api/users/42", "//", "/index.html", "//api/stats", "/API/stats", "/api/stats/", "/api/users/42/messages/", "/api//users/42", "/metrics/../api/users/42", "/api/users/42/", "/API/users/42", "/api/users/%34%32", "/%61pi/users/42", "/debug/pprof", "/debug//pprof/heap", "/debug/pprof/../../api/users/42",
			"/api", "/api/", "/api/messages/", "//api/messages", "/api/groups/", "/api/groups/42/", "/api/groups/42/messages/", "/api/users/42/position/", "/api/users/42/position/../../43", "/api/users/position"} {
			for _, method := range []string{"GET", "HEAD", "DELETE", "POST", "OPTIONS", "TRACE"} {
				if answer := ask(e, method, path, func(r *http.Request) { loopback(r); client.change(r) }); answer.Code/100 == 2 || answer.Code >= 500 {
					t.Errorf("%s: %s %s is answered with %d", name, method, path, answer.Code)
				}
			}
		}
	}
}

// Flags may contain a password.
func TestCmdlineContainsNoFlags(t *testing.T) {
	if answer := ask(mounted(""), "GET", "/debug/pprof/cmdline", nil); answer.Code != 200 || strings.ContainsAny(answer.Body.String(), "\x00-/ ") {
		t.Errorf("%d %q", answer.Code, answer.Body)
	}
}

func TestProfilesAreServedBehindTheGuard(t *testing.T) {
	e := mounted("")
	for path, holds := range map[string]string{
		"/debug/pprof/":                   "goroutine",
		"/debug/pprof/goroutine?debug=1":  "goroutine profile:",
		"/debug/pprof/heap":               "",
		"/debug/pprof/cmdline":            "",
		"/debug/pprof/symbol":             "num_symbols",
		"/debug/pprof/trace?seconds=0.01": "",
	} {
		if answer := ask(e, "GET", path, nil); answer.Code != 200 || answer.Body.Len() == 0 || !strings.Contains(answer.Body.String(), holds) {
			t.Errorf("%s: %d, %d bytes", path, answer.Code, answer.Body.Len())
		}
		answer := ask(e, "GET", path, func(r *http.Request) { r.RemoteAddr = "10.0.0.9:40000" })
		if answer.Code != 403 {
			t.Errorf("%s: an unauthenticated client receives %d", path, answer.Code)
		}
	}
}
