package hubtest

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/internal/ssetest"
)

// WantRejection checks that requests of user 42 are rejected temporarily. An EventSource must receive an event busy,
// because a status other than 200 would close it permanently. Other clients must receive the status. It sends three
// requests. The flag --retry must be 2s.
func (h *Hub) WantRejection(tb testing.TB, reason string, status int) {
	tb.Helper()
	s, err := ssetest.Request(h.PublicAddr(), "user=42")
	if err != nil {
		tb.Fatal(err)
	}
	defer s.Close()
	if s.Response.StatusCode != 200 || s.Response.Header.Get("Content-Type") != "text/event-stream" {
		tb.Fatalf("an EventSource is rejected with %s, %v", s.Response.Status, s.Response.Header)
	}
	s.WantEvent(tb, "busy", `{"reason":"`+reason+`"}`)
	s.WantEnd(tb)
	if s.Retry < 5*time.Second || s.Retry > 15*time.Second {
		tb.Errorf("retry %v, want 10 s ± 50 %%", s.Retry)
	}
	if s.LastID != "" {
		tb.Errorf("a rejection changes the last id to %s", s.LastID)
	}
	for _, accept := range []string{"*/*", "application/json"} {
		r := Request(tb, "GET", h.PublicURL("/events?user=42"), "Accept: "+accept)
		if r.Status != status {
			tb.Errorf("Accept: %s is rejected with %d, want %d", accept, r.Status, status)
		}
		if s, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || s < 5 || s > 15 {
			tb.Errorf("Retry-After: %q, want 5 to 15 seconds", r.Header.Get("Retry-After"))
		}
		if !strings.HasPrefix(r.Body, `{"error":"`) {
			tb.Errorf("body %q", r.Body)
		}
	}
}
