package main

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usercast/internal/redistest"
)

// A sessionApp is an app that knows its users by a cookie: session=<user>, and says so to
// the hub. It counts what that costs it.
type sessionApp struct {
	*httptest.Server
	asked       atomic.Int64 // requests
	open, most  atomic.Int64 // of them at once
	connections atomic.Int64 // open ones
	status      atomic.Int64 // answered to all, if not 0
}

func startSessionApp(t *testing.T) *sessionApp {
	t.Helper()
	a := new(sessionApp)
	a.Server = httptest.NewUnstartedServer(a)
	a.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			a.connections.Add(1)
		case http.StateClosed:
			a.connections.Add(-1)
		}
	}
	a.Start()
	t.Cleanup(a.Close)
	return a
}

func (a *sessionApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.asked.Add(1)
	n := a.open.Add(1)
	defer a.open.Add(-1)
	for most := a.most.Load(); n > most && !a.most.CompareAndSwap(most, n); most = a.most.Load() {
	}
	time.Sleep(time.Millisecond) // a look into the database
	if status := a.status.Load(); status != 0 {
		w.WriteHeader(int(status))
		return
	}
	cookie, err := r.Cookie("session")
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-User-ID", cookie.Value)
}

func (a *sessionApp) flags() []string {
	return []string{"--auth", "forward", "--forward-url", a.URL + "/usercast/session"}
}

func session(user string) string { return "Cookie: session=" + user }

// 5,000 tabs of 500 users come at once, as after a deploy.
func TestForwardStormAsksTheAppOncePerUser(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of streams")
	}
	const streams, users = 5000, 500
	app := startSessionApp(t)
	server := redistest.Start(t)
	h := startHub(t, server, app.flags()...)
	pages := make([]*page, streams)
	t.Cleanup(func() {
		for _, p := range pages {
			if p != nil {
				p.close()
			}
		}
	})
	conns := make([]net.Conn, streams)
	each(t, streams, func(i int) (err error) {
		conns[i], err = net.Dial("tcp", h.PublicAddr())
		return err
	})
	start := time.Now()
	for i, conn := range conns { // all have asked before the first is read
		fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n%s\r\n\r\n", h.PublicAddr(), session(fmt.Sprint(i%users)))
	}
	each(t, streams, func(i int) (err error) {
		pages[i], err = openPageOn(hasAsked{conns[i]}, "")
		return err
	})
	asked, open, connections := app.asked.Load(), app.open.Load(), app.connections.Load()
	t.Logf("%d streams of %d users in %v: the app was asked %d times, %d at once; then %d questions and %d idle connections were open",
		streams, users, time.Since(start).Round(time.Millisecond), asked, app.most.Load(), open, connections)
	if asked > users || app.most.Load() > 32 || open != 0 || connections > 32 {
		t.Errorf("want %d questions at most, 32 at once at most, and none open", users)
	}
	newPublisher(t, server.Addr()).publish(t, "user-*", "hello")
	each(t, streams, func(i int) error { return pages[i].expect("message", "hello") })
	// The last connections close by themselves: nothing of the app's is held while streams are open.
	for deadline := time.Now().Add(patience); app.connections.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections to the app stay open", app.connections.Load())
		}
	}
}

// hasAsked is a connection over which a request was sent already.
type hasAsked struct{ net.Conn }

func (hasAsked) Write(b []byte) (int, error) { return len(b), nil }

func TestForward(t *testing.T) {
	app := startSessionApp(t)
	server := redistest.Start(t)
	h := startHub(t, server, append(app.flags(), "--auth-cache", "1h")...)
	p := h.openPage(t, "", session("42"))
	publisher := newPublisher(t, server.Addr())
	publisher.publish(t, "user-42", "hello")
	p.want(t, "hello")

	refused := func(status int, want int, headers ...string) {
		t.Helper()
		app.status.Store(int64(status))
		if a := ask(t, "GET", h.public("/events"), headers...); a.code != want || !strings.HasPrefix(a.body, `{"error":"`) {
			t.Errorf("the app answers %d, the hub %d %s; want %d", status, a.code, a.body, want)
		}
	}
	refused(0, 401)
	refused(0, 403, session("*"))
	refused(0, 403, session("a:b"))
	refused(403, 403, session("1"))
	refused(302, 401, session("1"))
	refused(302, 401, session("1"))
	refused(500, 503, session("1"))
	if n := len(h.log.lines("redirect")); n != 1 {
		t.Errorf("the redirect is logged %d times, want once", n)
	}
	// An EventSource is told to come back.
	busy, err := dialPage(h.PublicAddr(), "", session("1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(busy.close)
	busy.wantEvent(t, "busy", `{"reason":"auth-unavailable"}`)
	busy.wantEnd(t)

	// The yes is kept, up to an order.
	asked := app.asked.Load()
	again := h.openPage(t, "", session("42"))
	if app.asked.Load() != asked {
		t.Error("the app was asked again within the time of the cache")
	}
	if a := ask(t, "DELETE", h.private("/api/users/42")); a.code != 200 {
		t.Fatalf("%d %s", a.code, a.body)
	}
	for _, p := range []*page{p, again} {
		p.wantEvent(t, "bye", `{"reason":"kicked"}`)
		p.wantEnd(t)
	}
	refused(401, 401, session("42"))
	h.wantMetrics(t, map[string]float64{
		"usercast_rejects_total" + reasonLabel("unauthorized"):     5,
		"usercast_rejects_total" + reasonLabel("bad-user"):         2,
		"usercast_rejects_total" + reasonLabel("auth-unavailable"): 2,
	})
}

// A hub that can let nobody in does not ask the app who it is.
func TestFullOrStoppingHubDoesNotAskTheApp(t *testing.T) {
	app := startSessionApp(t)
	h := startHub(t, redistest.Start(t), append(app.flags(), "--auth-cache", "0", "--max-clients", "1", "--drain-delay", "1h")...)
	p := h.openPage(t, "", session("42"))
	asked := app.asked.Load()
	for i := range 5 {
		if a := ask(t, "GET", h.public("/events"), session(fmt.Sprint(i))); a.code != 503 || !strings.Contains(a.body, "places are taken") {
			t.Errorf("%d %s", a.code, a.body)
		}
	}
	p.close()
	eventually(t, "there is a place", func() bool { return h.Hub().Stats().Clients == 0 })
	h.Hub().Refuse()
	if a := ask(t, "GET", h.public("/events"), session("1")); a.code != 503 || !strings.Contains(a.body, "stopping") {
		t.Errorf("%d %s", a.code, a.body)
	}
	if n := app.asked.Load() - asked; n != 0 {
		t.Errorf("the app was asked %d times for nothing", n)
	}
}

// Who waits for an app that does not answer when the hub stops is told to come back: a proxy
// would make 502 of a connection that is cut off.
func TestStoppingHubAnswersWhoWaitsForTheApp(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		came := make(chan bool, 10)
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			came <- true
			<-r.Context().Done()
		}))
		defer app.Close()
		defer app.CloseClientConnections() // should nobody else
		h := startHub(t, redistest.Start(t), writer, "--auth", "forward", "--forward-url", app.URL, "--auth-timeout", "1h")
		type told struct {
			p   *page
			err error
		}
		answers := make(chan told, 2)
		for i := range 2 {
			go func() {
				p, err := dialPage(h.PublicAddr(), "", session(fmt.Sprint(i)))
				answers <- told{p, err}
			}()
		}
		<-came // the other one waits for its turn: both are of one address
		h.wantMetrics(t, map[string]float64{"usercast_auth_in_flight": 1, "usercast_auth_waiting": 1})
		h.stop(errInterrupt)
		for range 2 {
			a := <-answers
			if a.err != nil {
				t.Fatal(a.err)
			}
			defer a.p.close()
			e, err := a.p.next()
			if err != nil || e.name != "busy" {
				t.Errorf("%+v, %v", e, err)
			}
		}
		h.wait(t)
	})
}

func TestHeader(t *testing.T) {
	server := redistest.Start(t)
	publisher := newPublisher(t, server.Addr())
	h := startHub(t, server, "--auth", "header", "--trusted-proxy", "127.0.0.1", "--user-header", "x-forwarded-user")
	p := h.openPage(t, "", "X-Forwarded-User: 42", "X-User-Topics: a")
	publisher.publish(t, "user-42:b", "not seen")
	publisher.publish(t, "user-42:a", "seen")
	p.want(t, "seen")
	for _, headers := range [][]string{{}, {"X-User-ID: 42"}} {
		if a := ask(t, "GET", h.public("/events"), headers...); a.code != 401 {
			t.Errorf("%q: %d %s", headers, a.code, a.body)
		}
	}
	if a := ask(t, "GET", h.public("/events?topic=b"), "X-Forwarded-User: 42", "X-User-Topics: a"); a.code != 403 {
		t.Errorf("a topic that may not be seen: %d %s", a.code, a.body)
	}

	h = startHub(t, server, "--auth", "header", "--trusted-proxy", "10.0.0.0/8")
	if a := ask(t, "GET", h.public("/events?user=42"), "X-User-ID: 42", "X-Forwarded-For: 10.0.0.1"); a.code != 401 {
		t.Errorf("spoofed: %d %s", a.code, a.body)
	}
}

func sign(t *testing.T, secret string, claims jwt.MapClaims) string {
	t.Helper()
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestJWT(t *testing.T) {
	const secret = "a secret of thirty-two characters"
	server := redistest.Start(t)
	publisher := newPublisher(t, server.Addr())
	h := startHub(t, server, "--auth", "jwt", "--jwt-secret-file", secretFile(t, secret), "--jwt-query", "--retry", "50ms", "--ping-interval", "1h")
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	token := sign(t, secret, jwt.MapClaims{"sub": 42, "exp": in(time.Hour), "topics": []string{"a", ""}})
	pages := []*page{
		h.openPage(t, "", "Cookie: usercast="+token),
		h.openPage(t, "", "Authorization: bearer "+token),
		h.openPage(t, "token="+token),
	}
	publisher.publish(t, "user-42:b", "not seen")
	publisher.publish(t, "user-42:a", "seen")
	publisher.publish(t, "user-*:b", "not seen")
	publisher.publish(t, "user-*", "seen by all")
	for _, p := range pages {
		p.want(t, "seen", "seen by all")
		p.close()
	}
	for name, test := range map[string]struct {
		code   int
		claims jwt.MapClaims
	}{
		"expired":    {401, jwt.MapClaims{"sub": "42", "exp": in(-31 * time.Second)}},
		"no end":     {401, jwt.MapClaims{"sub": "42"}},
		"no subject": {401, jwt.MapClaims{"exp": in(time.Hour)}},
		"empty":      {403, jwt.MapClaims{"sub": "", "exp": in(time.Hour)}},
		"everybody":  {403, jwt.MapClaims{"sub": "*", "exp": in(time.Hour)}},
		"colon":      {403, jwt.MapClaims{"sub": "4:2", "exp": in(time.Hour)}},
	} {
		if a := ask(t, "GET", h.public("/events"), "Authorization: Bearer "+sign(t, secret, test.claims)); a.code != test.code || !strings.HasPrefix(a.body, `{"error":"`) {
			t.Errorf("%s: %d %s, want %d", name, a.code, a.body, test.code)
		}
	}

	// A page whose log-in ends is told so, comes back once, and hears that it is over.
	last := "Cookie: usercast=" + sign(t, secret, jwt.MapClaims{"sub": "42", "exp": in(-28 * time.Second)})
	p := h.openPage(t, "", last)
	p.wantEvent(t, "bye", `{"reason":"expired"}`)
	p.wantEnd(t)
	if a := ask(t, "GET", h.public("/events"), last, "Accept: text/event-stream"); a.code != 401 {
		t.Errorf("after the end: %d %s", a.code, a.body)
	}
	h.wantMetrics(t, map[string]float64{"usercast_disconnects_total" + reasonLabel("expired"): 1})
}

// The keys of a JWK set that nobody hands out yet are "not now".
func TestJWKSThatIsDownIsNotNow(t *testing.T) {
	down := httptest.NewServer(http.NotFoundHandler())
	defer down.Close()
	h := startHub(t, redistest.Start(t), "--auth", "jwt", "--jwt-jwks-url", down.URL)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	unverified := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{"sub": "42", "exp": time.Now().Add(time.Hour).Unix()})
	unverified.Header["kid"] = "new"
	token, err := unverified.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	if a := ask(t, "GET", h.public("/events"), "Authorization: Bearer "+token); a.code != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.code, a.body)
	}
	if a := ask(t, "GET", h.public("/events"), "Authorization: Bearer "+sign(t, "x", jwt.MapClaims{"sub": "42"})); a.code != 401 && a.code != 503 {
		t.Errorf("with HS256: %d %s", a.code, a.body)
	}
}

// What frameworks answer when they are asked for a session, as the examples in docs/auth.md
// have them.
func TestForwardSpeaksWithFrameworks(t *testing.T) {
	loggedIn := func(r *http.Request, cookie string) bool {
		c, err := r.Cookie(cookie)
		return err == nil && c.Value == "s1gned"
	}
	isXHR := func(r *http.Request) bool { return r.Header.Get("X-Requested-With") == "XMLHttpRequest" }
	frameworks := []struct {
		name, cookie string
		check        http.HandlerFunc
		logs         bool // that it redirects
	}{
		// Devise: an unknown user of a format that is not navigational gets 401, others a redirect.
		{"Rails with Devise", "_app_session", func(w http.ResponseWriter, r *http.Request) {
			switch {
			case loggedIn(r, "_app_session"):
				http.SetCookie(w, &http.Cookie{Name: "_app_session", Value: "s1gned-anew"})
				w.Header().Set("X-User-ID", "42")
			case strings.Contains(r.Header.Get("Accept"), "json"):
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"error":"You need to sign in or sign up before continuing."}`)
			default:
				http.Redirect(w, r, "/users/sign_in", http.StatusFound)
			}
		}, false},
		{"Django", "sessionid", func(w http.ResponseWriter, r *http.Request) {
			if !loggedIn(r, "sessionid") {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.Header().Set("X-User-ID", "42")
			w.Header().Set("Vary", "Cookie")
		}, false},
		// The same with @login_required, which answers with a redirect whoever asks.
		{"Django, login_required", "sessionid", func(w http.ResponseWriter, r *http.Request) {
			if !loggedIn(r, "sessionid") {
				http.Redirect(w, r, "/accounts/login/?next=/usercast/session", http.StatusFound)
				return
			}
			w.Header().Set("X-User-ID", "42")
		}, true},
		// The auth middleware: 401 to whoever expects JSON, else a redirect.
		{"Laravel", "laravel_session", func(w http.ResponseWriter, r *http.Request) {
			switch {
			case loggedIn(r, "laravel_session"):
				http.SetCookie(w, &http.Cookie{Name: "XSRF-TOKEN", Value: "x"})
				w.Header().Set("X-User-ID", "42")
			case isXHR(r) && r.Header.Get("Accept") == "application/json":
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprint(w, `{"message":"Unauthenticated."}`)
			default:
				http.Redirect(w, r, "/login", http.StatusFound)
			}
		}, false},
	}
	server := redistest.Start(t)
	publisher := newPublisher(t, server.Addr())
	for _, f := range frameworks {
		t.Run(f.name, func(t *testing.T) {
			app := httptest.NewServer(f.check)
			defer app.Close()
			h := startHub(t, server, "--auth", "forward", "--forward-url", app.URL+"/usercast/session")
			p := h.openPage(t, "", "Cookie: theme=dark; "+f.cookie+"=s1gned")
			publisher.publish(t, "user-42", "hello")
			p.want(t, "hello")
			for _, headers := range [][]string{{}, {"Cookie: " + f.cookie + "=forged"}} {
				if a := ask(t, "GET", h.public("/events"), append(headers, "Accept: text/event-stream")...); a.code != 401 {
					t.Errorf("%q: %d %s", headers, a.code, a.body)
				}
			}
			if n := len(h.log.lines("level=WARN", "redirect")); f.logs != (n == 1) || n > 1 {
				t.Errorf("the redirect is logged %d times", n)
			}
		})
	}
}
