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

// repeatAfter is how long a fault that comes back in one outage, after another
// one, goes unmentioned: two that take turns at every try would fill the log.
const repeatAfter = time.Minute

// reporter says each state once: a fault when it is not the one said last,
// a missing right once in a process's life. Safe for concurrent use.
type reporter struct {
	log *slog.Logger

	// Guarded by mu.
	mu      sync.Mutex
	link    saying
	probe   saying
	scan    saying
	several bool            // severalServers has been said
	named   map[string]bool // commands of missing rights
	orders  struct {
		said     time.Time
		unspoken uint64 // malformed ones since
	}
}

// saying is what has been said about one thing since it last worked.
type saying struct {
	last string               // key
	at   map[string]time.Time // key → when said
}

func newReporter(log *slog.Logger, server *topology.Server) *reporter {
	return &reporter{log: log.With("redis", server.Name()), named: make(map[string]bool)}
}

// fresh reports whether to say a fault. Its key is what to do about it, beside the
// reason: a handshake that was late once must not hide a wrong certificate.
func (s *saying) fresh(f *topology.Fault, now time.Time) bool {
	key := f.Reason + ": " + f.Advice
	said, before := s.at[key]
	if s.last == key || before && now.Sub(said) < repeatAfter {
		return false
	}
	if s.at == nil {
		s.at = make(map[string]time.Time)
	}
	s.last, s.at[key] = key, now
	return true
}

// down says that a subscription was lost (live) or could not be made.
func (r *reporter) down(f *topology.Fault, live bool) {
	message := "redis subscription failed"
	if live {
		message = "redis subscription lost"
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link.fresh(f, time.Now()) {
		r.log.Warn(message, faultAttrs(f)...)
	}
}

func (r *reporter) subscribed(generation uint64, role string, where ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.link = saying{}
	attrs := append([]any{"generation", generation}, where...)
	level := slog.LevelInfo
	if role != "" {
		attrs = append(attrs, "role", role)
	}
	if role != "" && role != "master" {
		level = slog.LevelWarn
		attrs = append(attrs, "do", "subscribe to the primary: what is published there arrives here late, or never when the link between them is down")
	}
	r.log.Log(context.Background(), level, "redis subscribed", attrs...)
}

// probeFailed says that no probe could be sent. The subscription is left alone.
func (r *reporter) probeFailed(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.probe.fresh(f, time.Now()) {
		r.log.Warn("redis probe failed", faultAttrs(f)...)
	}
}

// severalServers says, once, that new connections to the address of s lead to different
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
	r.log.Warn("redis address leads to several servers, a failover is noticed only by a probe that does not return", "do", advice)
}

func (r *reporter) probeSent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probe = saying{}
}

// scanFailed says that queries wait because older entries cannot be read.
func (r *reporter) scanFailed(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.scan.fresh(f, time.Now()) {
		r.log.Warn("redis scan failed", faultAttrs(f)...)
	}
}

func (r *reporter) scanned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scan = saying{}
}

// missing says that a right is missing, or a command unknown, and what is lost
// with it.
func (r *reporter) missing(which acl.Right, user string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.named[which.Command] {
		return
	}
	r.named[which.Command] = true
	if goredis.IsPermissionError(err) {
		r.log.Warn("redis right missing", "command", which.Command,
			"do", "ACL SETUSER "+user+" "+which.Grant, "without", which.Without)
		return
	}
	r.log.Debug("redis command unavailable", "command", which.Command,
		"without", which.Without, "error", err)
}

// malformedControl says once a minute at most that orders cannot be carried out,
// and why the latest cannot. Err holds nothing of what was sent.
func (r *reporter) malformedControl(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.orders.unspoken++
	if now := time.Now(); r.orders.said.IsZero() || now.Sub(r.orders.said) >= repeatAfter {
		r.log.Warn("redis control malformed", "orders", r.orders.unspoken, "problem", err.Error())
		r.orders.said, r.orders.unspoken = now, 0
	}
}

func faultAttrs(f *topology.Fault) []any {
	attrs := []any{"reason", f.Reason, "problem", f.Problem, "do", f.Advice}
	if f.Err != nil {
		attrs = append(attrs, "error", f.Err)
	}
	return attrs
}
