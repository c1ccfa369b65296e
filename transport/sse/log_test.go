package sse_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/sse"
)

// A textLog is a buffer for log lines that is safe for concurrent use.
type textLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *textLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *textLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// loggedSite returns a server whose handler logs from a level on.
func loggedSite(t *testing.T, level slog.Level) (s *testServer, log *textLog) {
	log = new(textLog)
	h := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry})
	handler := sse.New(sse.Config{Hub: h.Hub, Authenticate: auth.Insecure, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))})
	return &testServer{t: t, hub: h, handler: handler}, log
}

// kicked opens a stream in a bubble and ends it with a disconnect.
func kicked(s *testServer, user string) {
	go s.handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/events?user="+user, nil))
	synctest.Wait()
	s.hub.Disconnect(user)
	synctest.Wait()
}

// count counts the lines that contain all the words.
func count(log *textLog, words ...string) (n int) {
next:
	for line := range strings.Lines(log.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		n++
	}
	return n
}

func TestEndByTheBrowserIsLoggedAtDebug(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := loggedSite(t, slog.LevelDebug)
		openAndClose(s, "user=42")
		kicked(s, "42")
		if count(log, "level=DEBUG", `msg="stream ended"`, "reason=closed") != 1 || count(log, "level=INFO", `msg="stream ended"`, "reason=kicked") != 1 {
			t.Errorf("log:\n%s", log)
		}
	})
}

// A client that reconnects without a pause causes a limited number of lines per minute and a summary. Lines about
// other users are not affected.
func TestClientThatReconnectsWithoutPauseIsSummarized(t *testing.T) {
	const streams = 500
	for _, test := range []struct {
		cause string
		once  func(s *testServer)
		lines int // one each, at info
	}{
		{"closed", func(s *testServer) { openAndClose(s, "user=42") }, 0},
		{"kicked", func(s *testServer) { kicked(s, "42") }, 60},
	} {
		t.Run(test.cause, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, log := loggedSite(t, slog.LevelInfo)
				for range streams {
					test.once(s)
				}
				kicked(s, "7")
				if n := count(log, "stream ended", "user=42"); n != test.lines || count(log, "summarized") != 0 {
					t.Errorf("%d lines about %d streams, want %d and no summary yet", n, streams, test.lines)
				}
				if count(log, "stream ended", "user=7") != 1 {
					t.Error("the end of another user's stream is not logged")
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if summary := fmt.Sprintf("user=42 reason=%s streams=%d", test.cause, streams); count(log, "level=INFO", "summarized", summary) != 1 || count(log, "summarized") != 1 {
					t.Errorf("after a minute, the log does not contain %q:\n%s", summary, log)
				}
				kicked(s, "42") // a new minute
				if n := count(log, "stream ended", "user=42", "reason=kicked"); n != test.lines%streams+1 {
					t.Errorf("%d lines in the next minute", n-test.lines)
				}
			})
		})
	}
}

// At debug level, each end has a line. The last summary is written when the last stream has
// ended.
func TestEachEndIsLoggedAtDebugLevel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, log := loggedSite(t, slog.LevelDebug)
		for range 100 {
			kicked(s, "42")
		}
		s.handler.Wait()
		if info, debug := count(log, "level=INFO", "stream ended"), count(log, "level=DEBUG", "stream ended"); info != 60 || debug != 40 {
			t.Errorf("%d lines at info and %d at debug, want 60 and 40", info, debug)
		}
		if count(log, "summarized", "streams=100") != 1 {
			t.Errorf("no summary at the end:\n%s", log)
		}
	})
}
