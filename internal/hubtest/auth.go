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

// A SessionApp is an app that knows its users by the cookie of SessionCookie, and answers the session checks of
// --auth forward. It counts what these cost it.
type SessionApp struct {
	*httptest.Server
	Asked       atomic.Int64 // requests
	Open, Most  atomic.Int64 // concurrent requests: now, and at most
	Connections atomic.Int64 // open ones
	Status      atomic.Int64 // of all responses, if not 0
}

// StartSessionApp starts one.
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
	a.Asked.Add(1)
	n := a.Open.Add(1)
	defer a.Open.Add(-1)
	for most := a.Most.Load(); n > most && !a.Most.CompareAndSwap(most, n); most = a.Most.Load() {
	}
	time.Sleep(time.Millisecond) // a look into the database
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

// Flags make a hub use the app.
func (a *SessionApp) Flags() []string {
	return []string{"--auth", app.AuthForward, "--forward-url", a.URL + "/usercast/session"}
}

// SessionCookie is the header of a user's requests.
func SessionCookie(user string) string { return "Cookie: session=" + user }

// Token is a JWT, signed with HS256.
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

// SecretFile is a file with a secret, as an editor leaves it.
func SecretFile(tb testing.TB, secret string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(secret+"\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}
