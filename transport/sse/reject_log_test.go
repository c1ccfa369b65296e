package sse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"usercast/auth"
	"usercast/hub"
)

// rejecting returns a handler that logs to the buffer, and a function that sends a request to it.
func rejecting(authenticate auth.Authenticator) (*Handler, *bytes.Buffer, func(headers ...string) *httptest.ResponseRecorder) {
	log := new(bytes.Buffer)
	h := New(Config{Hub: hub.NewPubSub(hub.Config{Encode: EncodeEntry}).Hub, Authenticate: authenticate, Logger: slog.New(slog.NewTextHandler(log, nil))})
	return h, log, func(headers ...string) *httptest.ResponseRecorder {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		r := httptest.NewRequestWithContext(context.WithValue(ctx, leaveKey{}, cancel), http.MethodGet, "http://hub.example/events?token=s3cret", nil)
		r.Header.Set("Accept", mediaType)
		r.Header.Set("Cookie", "session=s3cret")
		r.Header.Set("Authorization", "Bearer s3cret")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w
	}
}

type leaveKey struct{}

// leave ends the context of a request of rejecting, as when the client disconnects.
func leave(r *http.Request) { r.Context().Value(leaveKey{}).(context.CancelFunc)() }

// For a permanent rejection, the browser's console shows only the status. The hub's log names the origin, the reason
// and the flag that would allow the request, once.
func TestRejectionIsLoggedOncePerOriginAndReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reject := auth.WithHint(fmt.Errorf("%w: no token", auth.ErrUnauthorized), "--jwt-cookie names it")
		_, log, send := rejecting(func(*http.Request) (auth.Identity, error) { return auth.Identity{}, reject })
		for _, test := range []struct {
			headers []string
			status  int
			want    []string // in the line
		}{
			{nil, 401, []string{"reason=unauthorized", `hint="--jwt-cookie names it"`, "no token", "host=hub.example"}},
			{[]string{"Origin", "https://app.example"}, 403, []string{"reason=origin", "origin=https://app.example", "--allow-origin https://app.example "}},
			{[]string{"Origin", "capacitor://localhost"}, 403, []string{"reason=origin", "--allow-origin capacitor://localhost "}},
			{[]string{"Origin", "null"}, 403, []string{"reason=origin", "origin=null", "cannot be allowed", "sandboxed"}},
			{[]string{"Origin", "file://"}, 403, []string{"reason=origin", "--allow-origin file:// "}},
			{[]string{"Origin", "app.example/x"}, 403, []string{"reason=origin", "does not identify a site"}},
			{[]string{"Sec-Fetch-Site", "cross-site"}, 403, []string{"reason=origin", "--allow-origin"}},
			{[]string{"Sec-Fetch-Mode", "no-cors"}, 403, []string{"reason=origin", "EventSource"}},
		} {
			log.Reset()
			for range 5 {
				if w := send(test.headers...); w.Code != test.status || strings.Contains(w.Body.String(), "--") {
					t.Fatalf("%q: %d %s", test.headers, w.Code, w.Body)
				}
			}
			if strings.Count(log.String(), "\n") != 1 || !strings.Contains(log.String(), "level=WARN") {
				t.Fatalf("%q: logged %q, want one warning", test.headers, log)
			}
			for _, want := range test.want {
				if !strings.Contains(log.String(), want) {
					t.Errorf("%q: %s lacks %q", test.headers, log, want)
				}
			}
			if strings.Contains(log.String(), "s3cret") {
				t.Errorf("%q: a secret is logged: %s", test.headers, log)
			}
			time.Sleep(time.Minute)
		}
		log.Reset()
		time.Sleep(time.Hour)
		if send(); strings.Count(log.String(), "\n") != 1 {
			t.Errorf("an hour later: logged %q, want one warning", log)
		}
	})
}

// Any client can send any origin, so the number of origins must not affect the size of the log or the memory.
func TestRejectionsOfManyOriginsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, log, send := rejecting(auth.Insecure)
		for i := range 10_000 {
			send("Origin", fmt.Sprintf("https://%d.example", i))
		}
		if n := strings.Count(log.String(), "\n"); n != rejectLogBurst {
			t.Errorf("%d lines for 10,000 origins, want %d", n, rejectLogBurst)
		}
		for i := range 24 * 60 {
			time.Sleep(time.Minute)
			for j := range 3 {
				send("Origin", fmt.Sprintf("https://%d-%d.example", i, j))
			}
		}
		if n := len(h.rejected.logged); n > rejectLogBurst+int(rejectLogTime/rejectLogEvery) {
			t.Errorf("%d rejections are remembered", n)
		}
		if !strings.Contains(log.String(), "suppressed=9990") {
			t.Error("no line says how many were suppressed")
		}
		log.Reset()
		time.Sleep(time.Minute)
		send("Origin", "https://"+strings.Repeat("x", 60<<10)+".example")
		if n := log.Len(); n == 0 || n > 1000 {
			t.Errorf("%d bytes are logged for a long origin", n)
		}
	})
}

// Rejections for one reason, which any client can cause, must not hide those for another.
func TestRejectionsOfOneReasonDoNotHideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, log, send := rejecting(func(*http.Request) (auth.Identity, error) { return auth.Identity{}, auth.ErrUnauthorized })
		for i := range 100 {
			send("Origin", fmt.Sprintf("https://%d.example", i))
		}
		log.Reset()
		if send(); strings.Count(log.String(), "reason=unauthorized") != 1 {
			t.Errorf("after rejections of 100 origins, a 401 is logged as %q, want one line", log)
		}
	})
}

// A client that disconnects during the body of its request does not count as rejected.
func TestDisconnectDuringTheBodyIsNotCounted(t *testing.T) {
	for err, want := range map[error]uint64{io.ErrUnexpectedEOF: 0, errors.New("timeout"): 1} {
		h, _, _ := rejecting(auth.Insecure)
		r := httptest.NewRequest(http.MethodGet, "http://hub.example/events?user=42", iotest.ErrReader(err))
		h.ServeHTTP(httptest.NewRecorder(), r)
		if n := h.Stats().Rejects["bad-request"]; n != want {
			t.Errorf("%v: %d rejections are counted, want %d", err, n, want)
		}
	}
}

// Failures that any client can cause are not counted as auth-unavailable, on which alerts are based.
func TestAuthUnavailableCountsOnlyOutages(t *testing.T) {
	for _, test := range []struct {
		err     error
		counted string
	}{
		{auth.ErrUnknownKey, "unknown-key"},
		{fmt.Errorf("the request ended: %w", context.Canceled), ""},
		{errors.New("the app does not respond"), "auth-unavailable"},
	} {
		h, log, send := rejecting(func(r *http.Request) (auth.Identity, error) {
			if test.counted == "" {
				leave(r)
			}
			return auth.Identity{}, test.err
		})
		if w := send(); w.Code != 200 || !strings.Contains(w.Body.String(), `{"reason":"auth-unavailable"}`) {
			t.Errorf("%v: %d %s", test.err, w.Code, w.Body)
		}
		if w := send("Accept", "*/*"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("%v: %d %v", test.err, w.Code, w.Header())
		}
		for reason, n := range h.Stats().Rejects {
			if want := map[bool]uint64{true: 2}[reason == test.counted]; n != want {
				t.Errorf("%v: %d rejects counted as %s, want %d", test.err, n, reason, want)
			}
		}
		if log.Len() > 0 {
			t.Errorf("%v: logged %s", test.err, log)
		}
	}
}

// An expired token is a temporary rejection: the page has time to renew it. One line per hour names it.
func TestExpiredTokenIsATemporaryRejection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reject := auth.WithHint(fmt.Errorf("%w: it has expired", auth.ErrExpired), "renew it")
		h, log, send := rejecting(func(*http.Request) (auth.Identity, error) { return auth.Identity{}, reject })
		for range 3 {
			if w := send(); w.Code != 200 || !strings.Contains(w.Body.String(), "event: busy\ndata: {\"reason\":\"expired\"}\n") {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if w := send("Accept", "*/*"); w.Code != 401 || w.Header().Get("Retry-After") == "" || strings.Contains(w.Body.String(), "renew it\"") {
				t.Errorf("%d, %v, %s", w.Code, w.Header(), w.Body)
			}
		}
		if n := h.Stats().Rejects["expired"]; n != 6 {
			t.Errorf("%d rejections are counted, want 6", n)
		}
		if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=INFO") || !strings.Contains(text, "rejected temporarily") || !strings.Contains(text, `hint="renew it"`) {
			t.Errorf("logged %q, want one line", text)
		}
	})
}
