package stream

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// The session check contains what the flags say. An app that binds sessions to the browser accepts them.
func TestSessionCheckContainsTheHeadersOfTheFlags(t *testing.T) {
	t.Parallel()
	const browser = "Mozilla/5.0 (X11; Linux x86_64)"
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "app.example" || r.UserAgent() != browser || r.Header.Get("X-Tenant") != "acme" || r.Header.Get("X-Other") != "" || r.Header.Get("Accept-Language") != "fr" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User-ID", "42")
	}))
	defer app.Close()
	h := hubtest.Start(t, redistest.Start(t), "--auth", "forward", "--forward-url", app.URL, "--forward-host", "app.example",
		"--forward-header", "x-tenant", "--forward-header", "Accept-Language")
	of := []string{"User-Agent: " + browser, "X-Tenant: acme", "X-Other: 1", "Accept-Language: fr"}
	h.Open(t, "", of...)
	for i, other := range map[int]string{0: "User-Agent: other", 1: "X-Tenant: other"} { // the accepted result is not used for them
		headers := append([]string{}, of...)
		headers[i] = other
		if a := hubtest.Request(t, "GET", h.PublicURL("/events"), headers...); a.Status != http.StatusUnauthorized {
			t.Errorf("%s: %d, want 401", other, a.Status)
		}
	}
}

// An app that returns 200 with an empty user rejects the visitor. The log contains one line for all of them.
func TestEmptyUserIsUnauthorized(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-User-ID", "") }))
	defer app.Close()
	h := hubtest.Start(t, redistest.Start(t), "--auth", "forward", "--forward-url", app.URL)
	for range 3 {
		if a := hubtest.Request(t, "GET", h.PublicURL("/events"), "Accept: text/event-stream"); a.Status != http.StatusUnauthorized || !strings.Contains(a.Body, "empty X-User-ID") {
			t.Errorf("%d %s, want 401", a.Status, a.Body)
		}
	}
	if lines := h.Log.Lines("WARN"); len(lines) != 1 || !strings.Contains(lines[0], "return 401 for visitors") {
		t.Errorf("logged %q, want one line with the hint", lines)
	}
	h.WantMetrics(t, map[string]float64{"usercast_rejects_total" + hubtest.Reason("unauthorized"): 3, "usercast_rejects_total" + hubtest.Reason("bad-user"): 0})
}
