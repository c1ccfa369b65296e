package redis

import (
	"context"
	"log/slog"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// repeatAfter is how long a fault is not logged again in one outage, after another
// one: two that alternate at every attempt would fill the log.
const repeatAfter = time.Minute

// A reporter logs each state once: a fault when it is not the one that was logged last,
// a missing right once in the life of the process. Safe for concurrent use.
type reporter struct {
	log *slog.Logger

	// Guarded by mu.
	mu      sync.Mutex
	link    logLimiter
	probe   logLimiter
	scan    logLimiter
	several bool            // severalServers was logged
	rights  map[string]bool // commands whose missing right was logged
	control struct {
		loggedAt  time.Time
		malformed uint64 // commands since then
	}
}

// A logLimiter knows what was logged about one thing since it last worked.
type logLimiter struct {
	last string               // key
	at   map[string]time.Time // key → when it was logged
}

func newReporter(log *slog.Logger, server *topology.Server) *reporter {
	return &reporter{log: log.With("redis", server.Name()), rights: make(map[string]bool)}
}

// allow reports whether to log a fault. Its key is what to do about it, in addition to the
// reason: a handshake that was late once must not hide a wrong certificate.
func (s *logLimiter) allow(f *topology.Fault, now time.Time) bool {
	key := f.Reason + ": " + f.Advice
	loggedAt, known := s.at[key]
	if s.last == key || known && now.Sub(loggedAt) < repeatAfter {
		return false
	}
	if s.at == nil {
		s.at = make(map[string]time.Time)
	}
	s.last, s.at[key] = key, now
	return true
}

// down logs that a subscription was lost (live) or could not be made.
func (r *reporter) down(f *topology.Fault, live bool) {
	message := "redis subscription failed, retrying"
	if live {
		message = "redis subscription lost, reconnecting"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link.allow(f, time.Now()) {
		r.log.Warn(message, faultAttrs(f)...)
	}
}

func (r *reporter) subscribed(generation uint64, role string, where ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.link = logLimiter{}
	attrs := append([]any{"generation", generation}, where...)
	level := slog.LevelInfo
	if role != "" {
		attrs = append(attrs, "role", role)
	}
	if role != "" && role != "master" {
		level = slog.LevelWarn
		attrs = append(attrs, "hint", "subscribe to the primary: its messages reach this replica late, or not at all while replication is down")
	}
	r.log.Log(context.Background(), level, "redis subscribed", attrs...)
}

// probeFailed logs that no probe could be sent. The subscription is kept.
func (r *reporter) probeFailed(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.probe.allow(f, time.Now()) {
		r.log.Warn("redis probe failed, keeping the subscription", faultAttrs(f)...)
	}
}

// severalServers logs, once, that new connections to the address of s lead to different
// servers, one of which is found.
func (r *reporter) severalServers(s *topology.Server, found topology.Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.several {
		return
	}
	r.several = true
	advice := "set --redis to the address of the primary, or to redis+sentinel:// with the Sentinels that watch it"
	if found.Mode == "cluster" {
		advice = "set --redis to redis+cluster://" + s.Addr()
	}
	r.log.Warn("redis address leads to several servers, a failover is detected only when a probe is lost", "hint", advice)
}

func (r *reporter) probeSent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probe = logLimiter{}
}

// scanFailed logs that queries wait because older entries cannot be read.
func (r *reporter) scanFailed(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.scan.allow(f, time.Now()) {
		r.log.Warn("redis scan failed, resuming clients wait", faultAttrs(f)...)
	}
}

func (r *reporter) scanned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scan = logLimiter{}
}

// missing logs that a right is missing, or a command unknown, and what does not work
// without it.
func (r *reporter) missing(which acl.Permission, user string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rights[which.Command] {
		return
	}
	r.rights[which.Command] = true
	if goredis.IsPermissionError(err) {
		r.log.Warn("redis permission missing", "command", which.Command,
			"hint", "ACL SETUSER "+user+" "+which.Grant, "consequence", which.Consequence)
		return
	}
	r.log.Debug("redis command unavailable", "command", which.Command,
		"consequence", which.Consequence, "error", err)
}

// malformedControl logs at most once per minute that control commands are malformed,
// and why the latest is. Err holds nothing of what was sent.
func (r *reporter) malformedControl(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.control.malformed++
	if now := time.Now(); r.control.loggedAt.IsZero() || now.Sub(r.control.loggedAt) >= repeatAfter {
		r.log.Warn("malformed control command", "commands", r.control.malformed, "error", err)
		r.control.loggedAt, r.control.malformed = now, 0
	}
}

func faultAttrs(f *topology.Fault) []any {
	attrs := []any{"reason", f.Reason, "problem", f.Problem, "hint", f.Advice}
	if f.Err != nil {
		attrs = append(attrs, "error", f.Err)
	}
	return attrs
}
