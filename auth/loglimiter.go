package auth

import (
	"sync"
	"time"
)

// A logLimiter decides which failures and recoveries of a service are logged: one of each per outage. Any client can
// cause single failures and must not be able to fill the log. It is safe for concurrent use.
type logLimiter struct {
	// Guarded by mu.
	mu          sync.Mutex
	down        bool      // a failure was logged, and its recovery was not yet
	logged      time.Time // when the last failure was logged
	lastFailure time.Time
}

// quietTime is the minimum time between two logged failures, and from the last failure to a logged recovery.
const quietTime = 10 * time.Second

// failed reports whether to log a failure.
func (l *logLimiter) failed(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastFailure = now
	if l.down || now.Sub(l.logged) < quietTime {
		return false
	}
	l.down, l.logged = true, now
	return true
}

// succeeded reports whether to log a recovery.
func (l *logLimiter) succeeded(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.down || now.Sub(l.lastFailure) < quietTime {
		return false
	}
	l.down = false
	return true
}

// retract undoes failed, because the failure was not one of the service.
func (l *logLimiter) retract() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
