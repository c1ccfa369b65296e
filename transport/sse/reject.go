package sse

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"usercast/auth"
	"usercast/hub"
)

// rejectReasons are all values of the label reason of usercast_rejects_total.
var rejectReasons = []string{
	"clients", "user-limit", "draining", "auth-unavailable", "unknown-key", "expired", // temporary
	"unauthorized", "origin", "topic", "bad-user", "bad-request", // permanent
}

// busyErrors are the error messages of temporary rejections, for clients that do not accept event streams.
var busyErrors = map[string]string{
	"clients":          "the server is at capacity; retry later",
	"user-limit":       "stream limit for this user reached; close a stream or retry later",
	"draining":         "the server is shutting down; retry later",
	"auth-unavailable": "authentication is temporarily unavailable; retry later",
	"expired":          "the token is not valid at this time; renew it and retry",
}

// hubRejectReason returns the reason for an error of hub.Register.
func hubRejectReason(err error) string {
	switch {
	case errors.Is(err, hub.ErrFull):
		return "clients"
	case errors.Is(err, hub.ErrUserLimit):
		return "user-limit"
	}
	return "draining"
}

// busyFactor times Retry is the mean delay after which a temporarily rejected client reconnects.
const busyFactor = 5

// rejectTemporarily rejects a client that may retry. An EventSource stops permanently at any
// status except 200 (WHATWG HTML, "Server-sent events", processing model), so the
// rejection is sent inside a stream that ends.
func (h *Handler) rejectTemporarily(w http.ResponseWriter, r *http.Request, q query, user, reason string) {
	h.rejects[reason].Add(1)
	h.busy(w, r, q, user, reason)
}

// busy is rejectTemporarily without counting. The user is "" if it is not known.
func (h *Handler) busy(w http.ResponseWriter, r *http.Request, q query, user, reason string) {
	retry := jitter(busyFactor * h.cfg.Retry)
	if !acceptsStream(r) {
		status := http.StatusServiceUnavailable
		switch reason {
		case "user-limit":
			status = http.StatusTooManyRequests
		case "expired":
			status = http.StatusUnauthorized
		}
		w.Header().Set("Retry-After", strconv.Itoa(int((retry+time.Second-1)/time.Second)))
		writeError(w, status, busyErrors[reason])
		return
	}
	block := appendBusy(nil, retry, reason, q.resume)
	if h.held.enter(user, r.RemoteAddr, h.mayHold(r)) {
		h.hold(w, r, block)
		return
	}
	setHead(w.Header())
	w.Write(block)
}

// rejectPermanently rejects a client, which receives the text of err.
func (h *Handler) rejectPermanently(w http.ResponseWriter, r *http.Request, status int, reason string, err error) {
	h.rejectUser(w, r, "", status, reason, err)
}

// rejectUser is rejectPermanently for a user, whom only the log names; "": not known.
func (h *Handler) rejectUser(w http.ResponseWriter, r *http.Request, user string, status int, reason string, err error) {
	h.rejects[reason].Add(1)
	h.rejected.note(h.log, r, user, reason, err)
	writeError(w, status, err.Error())
}

// A rejectLog logs rejections because of a request: one line per origin, reason and error within rejectLogTime.
// Anyone can cause rejections, so the number of lines per reason is limited, and only logged rejections
// are remembered. It is safe for concurrent use.
type rejectLog struct {
	// Guarded by mu.
	mu     sync.Mutex
	logged map[rejection]bool
	since  time.Time // when logged was cleared
	limits map[string]*rejectLimit
}

// A rejectLimit limits the lines of one reason, so that rejections for one reason do not hide those for another.
type rejectLimit struct {
	lines      *rate.Limiter
	suppressed int // since the last line
}

type rejection struct{ origin, reason, err string }

const (
	rejectLogTime  = time.Hour
	rejectLogEvery = time.Minute // between lines, after a burst
	rejectLogBurst = 10
)

func newRejectLog() *rejectLog {
	l := &rejectLog{limits: make(map[string]*rejectLimit)}
	for _, reason := range rejectReasons {
		l.limits[reason] = &rejectLimit{lines: rate.NewLimiter(rate.Every(rejectLogEvery), rejectLogBurst)}
	}
	return l
}

func (l *rejectLog) note(log *slog.Logger, r *http.Request, user, reason string, err error) {
	key := rejection{clip(originOf(r)), reason, err.Error()}
	suppressed, due := l.due(key, time.Now())
	if !due {
		return
	}
	attrs := []any{slog.String("reason", reason), slog.String("origin", key.origin), slog.String("host", clip(r.Host)), slog.String("remote", r.RemoteAddr)}
	if user != "" {
		attrs = append([]any{slog.String("user", clip(user))}, attrs...)
	}
	if hint := auth.Hint(err); hint != "" {
		attrs = append(attrs, slog.String("hint", hint))
	}
	if suppressed > 0 {
		attrs = append(attrs, slog.Int("suppressed", suppressed))
	}
	level, message := slog.LevelWarn, "stream rejected, the browser does not retry"
	if reason == "expired" {
		level, message = slog.LevelInfo, "stream rejected temporarily, the browser retries"
	}
	log.Log(r.Context(), level, message, append(attrs, slog.String("error", key.err))...)
}

// due reports whether to log a rejection, and how many others for the same reason were suppressed since the last line.
func (l *rejectLog) due(key rejection, now time.Time) (suppressed int, due bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.since) >= rejectLogTime {
		l.logged, l.since = make(map[rejection]bool), now
	}
	if l.logged[key] {
		return 0, false
	}
	limit := l.limits[key.reason]
	if !limit.lines.AllowN(now, 1) {
		limit.suppressed++
		return 0, false
	}
	l.logged[key] = true
	suppressed, limit.suppressed = limit.suppressed, 0
	return suppressed, true
}

func writeError(w http.ResponseWriter, status int, sentence string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff") // the body is not escaped for HTML, and can name a group of the request
	w.WriteHeader(status)
	body := json.NewEncoder(w)
	body.SetEscapeHTML(false) // keeps ?user=<id> readable
	body.Encode(map[string]string{"error": sentence})
}
