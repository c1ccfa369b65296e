package hubtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"usercast/internal/app"
)

// A SessionApp is an app that identifies users by the cookie of SessionCookie. It responds to the session checks of
// --auth forward and counts them.
type SessionApp struct {
	*httptest.Server
	Requests    atomic.Int64 // all requests
	Open, Most  atomic.Int64 // concurrent requests: current and maximum
	Connections atomic.Int64 // open connections
	Status      atomic.Int64 // status of all responses, if not 0
}

// StartSessionApp starts a SessionApp.
func StartSessionApp(tb testing.TB) *SessionApp {
	tb.Helper()
	a := new(SessionApp)
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.checkSession))
	a.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			a.Connections.Add(1)
		case http.StateClosed:
			a.Connections.Add(-1)
		}
	}
	a.Start()
	tb.Cleanup(a.Close)
	return a
}

func (a *SessionApp) checkSession(w http.ResponseWriter, r *http.Request) {
	a.Requests.Add(1)
	n := a.Open.Add(1)
	defer a.Open.Add(-1)
	for most := a.Most.Load(); n > most && !a.Most.CompareAndSwap(most, n); most = a.Most.Load() {
	}
	time.Sleep(time.Millisecond) // simulates a database query
	if status := a.Status.Load(); status != 0 {
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

// Flags returns the flags for a hub that uses the app.
func (a *SessionApp) Flags() []string {
	return []string{"--auth", app.AuthForward, "--forward-url", a.URL + "/usercast/session"}
}

// SessionCookie returns the header of a user's requests.
func SessionCookie(user string) string { return "Cookie: session=" + user }

// Token returns a JWT that is signed with HS256.
func Token(tb testing.TB, secret string, claims map[string]any) string {
	tb.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		tb.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// SecretFile returns the path of a file with a secret, followed by a line end as editors add it.
func SecretFile(tb testing.TB, secret string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
