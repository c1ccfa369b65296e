package auth

import (
	"sync"
	"time"
)

// An outage says when it is worth a line in the log that the app does not answer, and that
// it does again: a stranger can bring some answers about, and must not fill the log.
type outage struct {
	mu     sync.Mutex
	told   bool      // that it does not
	warned time.Time // when that was
	failed time.Time // when it last did not
}

// quietTime is how long nothing more is said, and how long there must be no failure for the
// app to be well again.
const quietTime = 10 * time.Second

// fails reports whether a failure is to be told.
func (o *outage) fails(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = now
	if o.told || now.Sub(o.warned) < quietTime {
		return false
	}
	o.told, o.warned = true, now
	return true
}

// works reports whether it is to be told that the app answers again.
func (o *outage) works(now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.told || now.Sub(o.failed) < quietTime {
		return false
	}
	o.told = false
	return true
}
