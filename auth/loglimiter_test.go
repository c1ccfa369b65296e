package auth

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newLogLimiter returns a logLimiter and the number of recoveries that it has logged.
func newLogLimiter() (*logLimiter, *atomic.Int32) {
	recoveries := new(atomic.Int32)
	return &logLimiter{recovered: func() { recoveries.Add(1) }}, recoveries
}

// An outage causes one line at its beginning and one at its end, even if single calls succeed in between.
func TestOutageIsLoggedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, recoveries := newLogLimiter()
		if l.succeeded(time.Now()); l.recovery != nil {
			t.Error("a recovery without an outage")
		}
		if !l.failed("a", time.Now()) || l.failed("a", time.Now()) {
			t.Error("a failure is not logged exactly once")
		}
		for range 90 { // failed calls of one client between calls of others
			time.Sleep(quietTime - time.Millisecond)
			if l.failed("a", time.Now()) {
				t.Fatal("the failure is logged again")
			}
			l.succeeded(time.Now())
			l.succeeded(time.Now())
		}
		if recoveries.Load() != 0 {
			t.Errorf("%d recoveries during the outage", recoveries.Load())
		}
		time.Sleep(quietTime - time.Millisecond)
		synctest.Wait()
		if recoveries.Load() != 0 {
			t.Error("the recovery is logged too early")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if recoveries.Load() != 1 { // without another success
			t.Errorf("%d recoveries, want one", recoveries.Load())
		}
		if !l.failed("a", time.Now()) {
			t.Error("the next outage is not logged")
		}
		l.succeeded(time.Now())
		l.close()
		time.Sleep(time.Hour)
		if synctest.Wait(); recoveries.Load() != 1 {
			t.Error("a recovery is logged after close")
		}
	})
}

// A new cause during an outage is logged, each at most once per hour. The number of causes per hour is bounded.
func TestEachCauseOfAnOutageIsLogged(t *testing.T) {
	t.Parallel()
	var l logLimiter
	now := time.Now()
	lines := 0
	for second := range 3600 {
		for cause := range 3 {
			if l.failed(fmt.Sprint(cause), now.Add(time.Duration(second)*time.Second)) {
				lines++
			}
		}
	}
	if lines != 3 {
		t.Errorf("%d lines about 3 causes", lines)
	}
	now = now.Add(time.Hour + time.Second)
	if !l.failed("1", now) || l.failed("1", now) {
		t.Error("a cause is not logged again after an hour")
	}
	for i := range 1000 {
		if l.failed(fmt.Sprint("other", i), now) {
			lines++
		}
	}
	if lines > 3+maxCauses || len(l.causes) > maxCauses {
		t.Errorf("%d lines about 1000 causes, %d are remembered", lines-3, len(l.causes))
	}
}

// One diagnosis is in progress at a time, and the next starts ten seconds after its end. A failure that was not one of the
// service does not hide the next failure.
func TestLogLimiterDiagnoses(t *testing.T) {
	t.Parallel()
	l, _ := newLogLimiter()
	now := time.Now()
	at := func(after time.Duration) time.Time { return now.Add(after) }
	if !l.diagnose("late", at(0)) || l.diagnose("late", at(time.Minute)) {
		t.Fatal("there is not exactly one diagnosis at a time")
	}
	l.diagnosisEnded(at(time.Minute))
	if l.diagnose("late", at(time.Minute+quietTime-1)) || !l.diagnose("late", at(time.Minute+quietTime)) {
		t.Error("the next diagnosis is not ten seconds later")
	}
	if !l.failed("late", at(2*time.Minute)) {
		t.Error("the failure is not logged")
	}
	l.diagnosisEnded(at(2 * time.Minute))
	if l.diagnose("late", at(3*time.Minute)) || !l.lastFailure.Equal(at(3*time.Minute)) {
		t.Error("the cause of an outage is diagnosed again")
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
		if f.diagnose(header, context.DeadlineExceeded); (len(f.logLimiter.causes) > 0) != down {
			t.Errorf("status %d without cookies: an outage: %v", status, !down)
		}
	}
}

// If the cause of an outage of a key server changes, the new cause is logged.
func TestJWKSLogsEachCauseOfAnOutage(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	var answer http.HandlerFunc
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r) }))
	defer s.Close()
	j, err := newJWKS(s.URL, time.Minute, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	failing := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
	}
	working := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"`+strings.Repeat("A", 43)+`"}]}`)
	}
	for i, step := range []struct {
		answer http.HandlerFunc
		want   string
	}{{failing(503), "503"}, {failing(503), ""}, {failing(404), "404"}, {failing(503), ""}, {working, "recovered"}, {working, ""}, {failing(404), "404"}} {
		answer = step.answer
		log.Reset()
		if j.complete(&fetch{done: make(chan struct{})}); !strings.Contains(log.String(), step.want) || step.want == "" && log.Len() > 0 {
			t.Errorf("step %d: logged %q, want %q", i, log.String(), step.want)
		}
	}
}
