package stream

import (
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// 600 tabs of 100 users connect at the same time, as after a deploy.
func TestForwardStormSendsOneCheckPerUser(t *testing.T) {
	if testing.Short() {
		t.Skip("opens hundreds of streams")
	}
	const streams, users = 600, 100
	app := hubtest.StartSessionApp(t)
	server := redistest.Start(t)
	h := hubtest.Start(t, server, app.Flags()...)
	pages := make([]*ssetest.Stream, streams)
	t.Cleanup(func() {
		for _, p := range pages {
			if p != nil {
				p.Close()
			}
		}
	})
	conns := make([]net.Conn, streams)
	hubtest.Each(t, streams, func(i int) (err error) {
		conns[i], err = net.Dial("tcp", h.PublicAddr())
		return err
	})
	start := time.Now()
	for i, conn := range conns { // all requests are sent before the first response is read
		fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: %s\r\nAccept: text/event-stream\r\n%s\r\n\r\n", h.PublicAddr(), hubtest.SessionCookie(fmt.Sprint(i%users)))
	}
	hubtest.Each(t, streams, func(i int) (err error) {
		pages[i], err = ssetest.OpenOn(requestSent{conns[i]}, "")
		return err
	})
	requests, open, connections := app.Requests.Load(), app.Open.Load(), app.Connections.Load()
	t.Logf("%d streams of %d users in %v: %d session checks, at most %d concurrent; afterwards %d checks and %d idle connections were open",
		streams, users, time.Since(start).Round(time.Millisecond), requests, app.Most.Load(), open, connections)
	if requests > users || app.Most.Load() > 32 || open != 0 || connections > 32 {
		t.Errorf("want at most %d session checks, at most 32 concurrent ones, and none open", users)
	}
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-*", "hello")
	hubtest.Each(t, streams, func(i int) error { return pages[i].Expect("message", "hello") })
	// Idle connections to the app are closed: open streams hold no connections to the app.
	for deadline := time.Now().Add(hubtest.Patience); app.Connections.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections to the app stay open", app.Connections.Load())
		}
	}
}

// requestSent is a connection on which the request was already sent.
type requestSent struct{ net.Conn }

func (requestSent) Write(b []byte) (int, error) { return len(b), nil }

func TestForward(t *testing.T) {
	t.Parallel()
	app := hubtest.StartSessionApp(t)
	server := redistest.Start(t)
	h := hubtest.Start(t, server, append(app.Flags(), "--auth-cache", "1h")...)
	p := h.Open(t, "", hubtest.SessionCookie("42"))
	publisher := hubtest.NewPublisher(t, server.Addr())
	publisher.Publish(t, "user-42", "hello")
	p.Want(t, "hello")

	refused := func(status int, want int, headers ...string) {
		t.Helper()
		app.Status.Store(int64(status))
		if a := hubtest.Request(t, "GET", h.PublicURL("/events"), headers...); a.Status != want || !strings.HasPrefix(a.Body, `{"error":"`) {
			t.Errorf("the app returns %d, the hub %d %s; want %d", status, a.Status, a.Body, want)
		}
	}
	refused(0, 401)
	refused(0, 403, hubtest.SessionCookie("*"))
	refused(0, 403, hubtest.SessionCookie("a:b"))
	refused(403, 403, hubtest.SessionCookie("1"))
	refused(302, 401, hubtest.SessionCookie("1"))
	refused(302, 401, hubtest.SessionCookie("1"))
	refused(500, 503, hubtest.SessionCookie("1"))
	if n := len(h.Log.Lines("redirected a session check")); n != 1 {
		t.Errorf("the redirect is logged %d times, want once", n)
	}
	// An EventSource receives busy, so that it reconnects.
	busy, err := ssetest.Request(h.PublicAddr(), "", hubtest.SessionCookie("1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(busy.Close)
	busy.WantEvent(t, "busy", `{"reason":"auth-unavailable"}`)
	busy.WantEnd(t)

	// An accepted session check is cached until a control command.
	requests := app.Requests.Load()
	again := h.Open(t, "", hubtest.SessionCookie("42"))
	if app.Requests.Load() != requests {
		t.Error("the app received another session check before the cache entry expired")
	}
	if a := hubtest.Request(t, "DELETE", h.AdminURL("/api/users/42")); a.Status != 200 {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	for _, p := range []*ssetest.Stream{p, again} {
		p.WantEvent(t, "bye", `{"reason":"kicked"}`)
		p.WantEnd(t)
	}
	refused(401, 401, hubtest.SessionCookie("42"))
	h.WantMetrics(t, map[string]float64{
		"usercast_rejects_total" + hubtest.Reason("unauthorized"):     5,
		"usercast_rejects_total" + hubtest.Reason("bad-user"):         2,
		"usercast_rejects_total" + hubtest.Reason("auth-unavailable"): 2,
	})
}

// A hub at capacity, or one that is stopping, does not send session checks.
func TestFullOrStoppingHubSendsNoSessionChecks(t *testing.T) {
	t.Parallel()
	app := hubtest.StartSessionApp(t)
	h := hubtest.Start(t, redistest.Start(t), append(app.Flags(), "--auth-cache", "0", "--max-clients", "1", "--drain-delay", "1h")...)
	p := h.Open(t, "", hubtest.SessionCookie("42"))
	requests := app.Requests.Load()
	for i := range 5 {
		if a := hubtest.Request(t, "GET", h.PublicURL("/events"), hubtest.SessionCookie(fmt.Sprint(i))); a.Status != 503 || !strings.Contains(a.Body, "at capacity") {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
	p.Close()
	hubtest.Eventually(t, "the first stream has ended", func() bool { return h.Hub().Stats().Clients == 0 })
	h.Hub().Refuse()
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), hubtest.SessionCookie("1")); a.Status != 503 || !strings.Contains(a.Body, "shutting down") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if n := app.Requests.Load() - requests; n != 0 {
		t.Errorf("%d unnecessary session checks", n)
	}
}

// When the hub stops, clients that wait for a session check receive busy: if the hub closed the connection, a
// proxy would respond with 502.
func TestStoppingHubRespondsToPendingClients(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		received := make(chan bool, 10)
		app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			received <- true
			<-r.Context().Done()
		}))
		defer app.Close()
		defer app.CloseClientConnections() // also if the test fails
		h := hubtest.Start(t, redistest.Start(t), writer, "--auth", "forward", "--forward-url", app.URL, "--auth-timeout", "1h")
		type result struct {
			p   *ssetest.Stream
			err error
		}
		results := make(chan result, 2)
		for i := range 2 {
			go func() {
				p, err := ssetest.Request(h.PublicAddr(), "", hubtest.SessionCookie(fmt.Sprint(i)))
				results <- result{p, err}
			}()
		}
		<-received // the other check is queued, because both come from the same address
		h.WantMetrics(t, map[string]float64{"usercast_auth_in_flight": 1, "usercast_auth_waiting": 1})
		h.Interrupt()
		for range 2 {
			a := <-results
			if a.err != nil {
				t.Fatal(a.err)
			}
			defer a.p.Close()
			e, err := a.p.Next()
			if err != nil || e.Type != "busy" {
				t.Errorf("%+v, %v", e, err)
			}
		}
		h.Wait(t)
	})
}

func TestHeader(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	publisher := hubtest.NewPublisher(t, server.Addr())
	h := hubtest.Start(t, server, "--auth", "header", "--trusted-proxy", "127.0.0.1", "--user-header", "x-forwarded-user")
	p := h.Open(t, "", "X-Forwarded-User: 42", "X-User-Topics: a")
	publisher.Publish(t, "user-42:b", "not seen")
	publisher.Publish(t, "user-42:a", "seen")
	p.Want(t, "seen")
	for _, headers := range [][]string{{}, {"X-User-ID: 42"}} {
		if a := hubtest.Request(t, "GET", h.PublicURL("/events"), headers...); a.Status != 401 {
			t.Errorf("%q: %d %s", headers, a.Status, a.Body)
		}
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/events?topic=b"), "X-Forwarded-User: 42", "X-User-Topics: a"); a.Status != 403 {
		t.Errorf("a topic that is not allowed: %d %s", a.Status, a.Body)
	}

	h = hubtest.Start(t, server, "--auth", "header", "--trusted-proxy", "10.0.0.0/8")
	if a := hubtest.Request(t, "GET", h.PublicURL("/events?user=42"), "X-User-ID: 42", "X-Forwarded-For: 10.0.0.1"); a.Status != 401 {
		t.Errorf("spoofed: %d %s", a.Status, a.Body)
	}
}

func TestJWT(t *testing.T) {
	t.Parallel()
	const secret = "a secret of thirty-two characters"
	server := redistest.Start(t)
	publisher := hubtest.NewPublisher(t, server.Addr())
	h := hubtest.Start(t, server, "--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, secret), "--jwt-query", "--retry", "50ms", "--ping-interval", "1h")
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	token := hubtest.Token(t, secret, jwt.MapClaims{"sub": 42, "exp": in(time.Hour), "topics": []string{"a", ""}})
	pages := []*ssetest.Stream{
		h.Open(t, "", "Cookie: usercast="+token),
		h.Open(t, "", "Authorization: bearer "+token),
		h.Open(t, "token="+token),
	}
	publisher.Publish(t, "user-42:b", "not seen")
	publisher.Publish(t, "user-42:a", "seen")
	publisher.Publish(t, "user-*:b", "not seen")
	publisher.Publish(t, "user-*", "seen by all")
	for _, p := range pages {
		p.Want(t, "seen", "seen by all")
		p.Close()
	}
	for name, test := range map[string]struct {
		code   int
		claims jwt.MapClaims
	}{
		"expired":    {401, jwt.MapClaims{"sub": "42", "exp": in(-10 * time.Minute)}},
		"no end":     {401, jwt.MapClaims{"sub": "42"}},
		"no subject": {401, jwt.MapClaims{"exp": in(time.Hour)}},
		"empty":      {403, jwt.MapClaims{"sub": "", "exp": in(time.Hour)}},
		"broadcast":  {403, jwt.MapClaims{"sub": "*", "exp": in(time.Hour)}},
		"colon":      {403, jwt.MapClaims{"sub": "4:2", "exp": in(time.Hour)}},
	} {
		if a := hubtest.Request(t, "GET", h.PublicURL("/events"), "Authorization: Bearer "+hubtest.Token(t, secret, test.claims)); a.Status != test.code || !strings.HasPrefix(a.Body, `{"error":"`) {
			t.Errorf("%s: %d %s, want %d", name, a.Status, a.Body, test.code)
		}
	}

	// A stream whose authentication expires receives bye. The reconnect is rejected temporarily, because the page may be
	// about to renew the token.
	last := "Cookie: usercast=" + hubtest.Token(t, secret, jwt.MapClaims{"sub": "42", "exp": in(-28 * time.Second)})
	p := h.Open(t, "", last)
	p.WantEvent(t, "bye", `{"reason":"expired"}`)
	p.WantEnd(t)
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), last, "Accept: text/event-stream"); a.Status != 200 || !strings.Contains(a.Body, "event: busy\ndata: {\"reason\":\"expired\"}\n") {
		t.Errorf("after expiry: %d %s", a.Status, a.Body)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), last); a.Status != 401 || a.Header.Get("Retry-After") == "" {
		t.Errorf("after expiry, without an EventSource: %d, %v, %s", a.Status, a.Header, a.Body)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), "Cookie: usercast="+hubtest.Token(t, secret, jwt.MapClaims{"sub": "42", "exp": in(time.Hour), "nbf": in(time.Minute)}),
		"Accept: text/event-stream"); a.Status != 200 || !strings.Contains(a.Body, `"expired"`) {
		t.Errorf("not valid yet: %d %s", a.Status, a.Body)
	}
	h.WantMetrics(t, map[string]float64{
		"usercast_disconnects_total" + hubtest.Reason("expired"): 1,
		"usercast_rejects_total" + hubtest.Reason("expired"):     3,
	})

	h = hubtest.Start(t, server, "--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, secret), "--jwt-expired-grace", "0")
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), "Cookie: usercast="+hubtest.Token(t, secret, jwt.MapClaims{"sub": "42", "exp": in(-31 * time.Second)}),
		"Accept: text/event-stream"); a.Status != 401 || a.Header.Get("Retry-After") != "" {
		t.Errorf("without a grace: %d, %v, %s", a.Status, a.Header, a.Body)
	}
}

// If the JWK set is unavailable, rejections are temporary.
func TestUnavailableJWKSRejectsTemporarily(t *testing.T) {
	t.Parallel()
	down := httptest.NewServer(http.NotFoundHandler())
	defer down.Close()
	h := hubtest.Start(t, redistest.Start(t), "--auth", "jwt", "--jwt-jwks-url", down.URL)
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
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), "Authorization: Bearer "+token); a.Status != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), "Authorization: Bearer "+hubtest.Token(t, "x", jwt.MapClaims{"sub": "42"})); a.Status != 401 && a.Status != 503 {
		t.Errorf("with HS256: %d %s", a.Status, a.Body)
	}
}
