package auth

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"
)

// An outage causes one line at its beginning and one at its end, even if single calls succeed in between.
func TestOutageIsLoggedOnce(t *testing.T) {
	var l logLimiter
	now := time.Now()
	at := func(after time.Duration) time.Time { return now.Add(after) }
	if l.succeeded(at(0)) {
		t.Error("a recovery without an outage is logged")
	}
	if !l.failed(at(0)) || l.failed(at(time.Second)) {
		t.Error("a failure is not logged exactly once")
	}
	lines := 0
	for ms := range 9000 { // failed calls of one client between calls of others
		if ms%2 == 0 && l.failed(at(time.Second+time.Duration(ms)*time.Millisecond)) || l.succeeded(at(time.Second+time.Duration(ms)*time.Millisecond)) {
			lines++
		}
	}
	if lines != 0 {
		t.Errorf("%d more lines", lines)
	}
	if l.succeeded(at(19*time.Second)) || !l.succeeded(at(20*time.Second)) || l.succeeded(at(21*time.Second)) {
		t.Error("the recovery is not logged exactly once, ten seconds after the last failure")
	}
	if !l.failed(at(22 * time.Second)) {
		t.Error("the next failure is not logged")
	}
}

// A failure that was not one of the service has no recovery, and does not hide the next failure.
func TestLogLimiterRetract(t *testing.T) {
	t.Parallel()
	var l logLimiter
	start := time.Now()
	if !l.failed(start) {
		t.Fatal("the first failure is not logged")
	}
	l.retract()
	if l.succeeded(start.Add(time.Hour)) {
		t.Error("a recovery is logged")
	}
	if !l.failed(start.Add(2 * time.Hour)) {
		t.Error("the next failure is not logged")
	}
}

// After the line about a single session, an outage of the app is logged.
func TestSlowSessionIsNotAnOutage(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.NotFoundHandler())
	defer app.Close()
	u, err := url.Parse(app.URL)
	if err != nil {
		t.Fatal(err)
	}
	for status, down := range map[int]bool{http.StatusUnauthorized: false, http.StatusNotFound: true} {
		app.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) })
		f := NewForward(ForwardConfig{URL: u, Timeout: time.Minute})
		defer f.Close()
		header := http.Header{"Cookie": {"session=42"}}
		if !f.log(header, context.DeadlineExceeded) {
			t.Error("the timeout is not diagnosed")
		}
		if f.diagnoseTimeout(header, context.DeadlineExceeded); f.logLimiter.down != down {
			t.Errorf("status %d without cookies: an outage: %v", status, !down)
		}
	}
}
