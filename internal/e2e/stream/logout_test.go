package stream

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// Django sends its signal before it deletes the session, deleting it can take seconds, and a session in a
// cookie is valid until the browser receives the response. A tab that reconnects in between is accepted once more. Its
// stream must not stay open.
func TestStreamOpenedDuringALogoutEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 16 s")
	}
	t.Parallel()
	var destroyed atomic.Bool
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("session")
		if err != nil || destroyed.Load() && cookie.Value == "42" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User-ID", cookie.Value)
	}))
	defer app.Close()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--auth", "forward", "--forward-url", app.URL)
	publisher := hubtest.NewPublisher(t, server.Addr())
	before, other := h.Open(t, "", hubtest.SessionCookie("42")), h.Open(t, "", hubtest.SessionCookie("7"))
	publisher.Publish(t, "usercast:user-control", `{"op":"disconnect","user":"42"}`)
	before.WantEvent(t, "bye", `{"reason":"kicked"}`)
	before.WantEnd(t)
	if before.Retry < 5*time.Second || before.Retry > 10*time.Second {
		t.Errorf("the page reconnects after %v, want 5 to 10 s", before.Retry)
	}
	opened := time.Now()
	during := h.Open(t, "", hubtest.SessionCookie("42")) // the app has not destroyed the session yet
	destroyed.Store(true)
	during.WantEvent(t, "bye", `{"reason":"kicked"}`)
	during.WantEnd(t)
	if d := time.Since(opened); d < 14*time.Second {
		t.Errorf("the stream ended after %v, want 15 s", d)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/events"), hubtest.SessionCookie("42")); a.Status != 401 {
		t.Errorf("reconnect: %d %s, want 401", a.Status, a.Body)
	}
	publisher.Publish(t, "user-*", "hello")
	other.Want(t, "hello")
}

// Tokens with forged key IDs are not counted as an outage of the identity provider.
func TestForgedKeyIDsAreCountedSeparately(t *testing.T) {
	t.Parallel()
	provider := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`)) // RFC 8037, appendix A.2
	}))
	defer provider.Close()
	h := hubtest.Start(t, redistest.Start(t), "--auth", "jwt", "--jwt-jwks-url", provider.URL)
	// {"alg":"EdDSA","kid":"b"}.{"sub":"1","exp":9e9}
	const forged = "eyJhbGciOiJFZERTQSIsImtpZCI6ImIifQ.eyJzdWIiOiIxIiwiZXhwIjo5ZTl9."
	codes := make(map[int]float64)
	for i := range 50 {
		codes[hubtest.Request(t, "GET", h.PublicURL("/events"), "Authorization: Bearer "+forged+"AA"+string(rune('A'+i/25))+string(rune('A'+i%25))).Status]++
	}
	if codes[401] == 0 || codes[503] == 0 || codes[401]+codes[503] != 50 {
		t.Errorf("statuses %v, want 401 and 503", codes)
	}
	h.WantMetrics(t, map[string]float64{
		"usercast_rejects_total" + hubtest.Reason("unauthorized"):     codes[401],
		"usercast_rejects_total" + hubtest.Reason("unknown-key"):      codes[503],
		"usercast_rejects_total" + hubtest.Reason("auth-unavailable"): 0,
	})
	if n := len(h.Log.Lines("stream rejected")); n != 1 {
		t.Errorf("%d lines about rejected streams, want 1", n)
	}
}
