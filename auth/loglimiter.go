package auth

import (
	"maps"
	"sync"
	"time"
)

// causes are the causes of an outage, with the time when each was logged.
type causes map[string]time.Time

// isNews reports whether a cause may be logged.
func (c causes) isNews(cause string, now time.Time) bool {
	if logged, ok := c[cause]; ok {
		return now.Sub(logged) >= causeTime
	}
	recent := 0
	for _, logged := range c {
		if now.Sub(logged) < causeTime {
			recent++
		}
	}
	return recent < maxCauses
}

// add records that a cause is logged, for which isNews returned true.
func (c *causes) add(cause string, now time.Time) {
	if *c == nil {
		*c = make(causes)
	}
	maps.DeleteFunc(*c, func(_ string, logged time.Time) bool { return now.Sub(logged) >= causeTime })
	(*c)[cause] = now
}

// A logLimiter decides which failures and recoveries of a service are logged. During an outage, each cause is logged at
// most once per hour, and at most maxCauses of them. Any client can cause single failures and must not be able to fill the
// log. It is safe for concurrent use.
type logLimiter struct {
	recovered func() // logs a recovery; called with mu held

	// Guarded by mu.
	mu          sync.Mutex
	causes      causes    // of this outage; empty if the service works
	logged      time.Time // when the last failure was logged
	lastFailure time.Time
	recovery    *time.Timer // calls recover; nil if there was no success since the last failure
	diagnosed   time.Time   // when the last diagnosis ended
	diagnosing  bool
}

const (
	// quietTime is the minimum time between two outages and between two diagnoses, and from the last failure to a
	// recovery.
	quietTime = 10 * time.Second

	// causeTime is the minimum time between two lines about the same cause.
	causeTime = time.Hour

	// maxCauses is the maximum number of causes per outage and causeTime. A cause contains text of the app, such as a
	// status or host, which browsers may be able to influence.
	maxCauses = 8
)

// failed reports whether to log a failure. The cause must not contain what differs per call, such as a port.
func (l *logLimiter) failed(cause string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.observe(now)
	if len(l.causes) == 0 && now.Sub(l.logged) < quietTime || !l.causes.isNews(cause, now) {
		return false
	}
	l.causes.add(cause, now)
	l.logged = now
	return true
}

// observe records a failure. It ends a recovery.
func (l *logLimiter) observe(now time.Time) {
	l.lastFailure = now
	if l.recovery != nil {
		l.recovery.Stop()
		l.recovery = nil
	}
}

// succeeded records that the service works. If it still does quietTime after the last failure, the outage has ended.
func (l *logLimiter) succeeded(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.causes) == 0 || l.recovery != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(quietTime-now.Sub(l.lastFailure), func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.recovery != timer { // it was stopped too late
			return
		}
		l.recovery = nil
		clear(l.causes)
		l.recovered()
	})
	l.recovery = timer
}

// diagnose reports whether the caller must find out whether a failure is one of the service, which takes time. If so, it
// must call failed if it is one, and then diagnosisEnded.
func (l *logLimiter) diagnose(cause string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.causes.isNews(cause, now) {
		l.observe(now)
		return false
	}
	if l.diagnosing || now.Sub(l.diagnosed) < quietTime {
		return false
	}
	l.diagnosing = true
	return true
}

func (l *logLimiter) diagnosisEnded(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.diagnosing, l.diagnosed = false, now
}

// close prevents that a recovery is logged later.
func (l *logLimiter) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.observe(l.lastFailure)
}
