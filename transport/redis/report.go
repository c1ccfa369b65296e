package redis

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/fleet"
	"usercast/transport/redis/internal/topology"
)

// repeatAfter is the minimum time between two log lines about the same fault in one outage.
// Otherwise two faults that alternate at every attempt would fill the log.
const repeatAfter = time.Minute

// A reporter logs each state once: a fault if it differs from the last one that was logged, a missing
// permission once per process. Safe for concurrent use.
type reporter struct {
	log *slog.Logger

	// Guarded by mu.
	mu      sync.Mutex
	link    logLimiter
	probe   logLimiter
	scan    logLimiter
	marker  logLimiter
	owner   logLimiter
	several bool            // severalServers was logged
	refused map[string]bool // commands whose missing permission was logged
	control struct {
		loggedAt  time.Time
		malformed uint64 // commands since then
	}
}

// A logLimiter records what was logged about one operation since it last succeeded.
type logLimiter struct {
	last string               // key
	at   map[string]time.Time // key → when it was logged
}

func newReporter(log *slog.Logger, server *topology.Server) *reporter {
	r := &reporter{log: log.With("redis", server.Name()), refused: make(map[string]bool)}
	server.ReportReload(r.tlsReloaded)
	return r
}

// tlsReloaded logs that a new connection has read changed TLS files.
func (r *reporter) tlsReloaded(files string, err error) {
	if err != nil {
		r.log.Warn("redis certificate reload failed, keeping previous certificate", "error", err)
		return
	}
	r.log.Info("redis certificate reloaded", "file", files)
}

// allow reports whether to log a fault. Faults are the same if both reason and advice are: after a TLS
// handshake that timed out, for example, a wrong certificate is still logged.
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
	r.link, r.owner = logLimiter{}, logLimiter{}
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

// probeFailed logs that a probe could not be sent. The subscription is kept.
func (r *reporter) probeFailed(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.probe.allow(f, time.Now()) {
		r.log.Warn("redis probe failed, keeping the subscription", faultAttrs(f)...)
	}
}

// ownerUnreachable logs that the node of a cluster to which all hubs should subscribe is unreachable.
func (r *reporter) ownerUnreachable(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owner.allow(f, time.Now()) {
		r.log.Warn("redis cluster primary of the control channel unreachable, keeping the subscription to another node", faultAttrs(f)...)
	}
}

// severalServers logs once that new connections to the address of s reach different servers: primary, where the feed is
// connected, and found.
func (r *reporter) severalServers(s *topology.Server, primary, found topology.Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.several {
		return
	}
	r.several = true
	if topology.AreIndependent(primary, found) {
		r.log.Warn("redis address leads to several primaries, what is published to the others is not received", "hint", topology.IndependentAdvice)
		return
	}
	r.log.Warn("redis address leads to several servers, a failover is detected only when a probe is lost", "hint", s.SeveralAdvice(found))
}

func (r *reporter) probeSent() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.probe = logLimiter{}
}

// scanFailed logs that older entries cannot be read. The clients that resume wait for them.
func (r *reporter) scanFailed(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.scan.allow(f, time.Now()) {
		r.log.Warn("redis stream read failed, resuming clients wait", faultAttrs(f)...)
	}
}

func (r *reporter) scanned() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scan = logLimiter{}
}

// markerFailed logs that markers cannot be published, or are not received.
func (r *reporter) markerFailed(f *topology.Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.marker.allow(f, time.Now()) {
		r.log.Warn("redis markers not published or not received, pages that move to another hub may receive a gap", faultAttrs(f)...)
	}
}

func (r *reporter) markerReceived() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.marker = logLimiter{}
}

// messagesMissed logs that another hub has received messages that this one has not.
func (r *reporter) messagesMissed(m fleet.Mismatch) {
	attrs := []any{"received_by", m.Other}
	if m.Missing > 0 {
		attrs = append(attrs, "at_least", m.Missing) // it counts only up to a marker that the other hub has received too
	}
	r.log.Warn("redis messages missed on an open connection, announcing a gap",
		append(attrs, "hint", "check what is between this hub and Redis, such as a proxy")...)
}

// hubDiffers logs how another hub, with these patterns, differs from this one, with these channels and this version. It is
// called once for each process of a hub.
func (r *reporter) hubDiffers(other Hub, patterns []string, own Channels, version string) {
	if other.OtherPatterns {
		message, flag := "another hub subscribes to other channels", "--channel-prefix"
		if slices.Contains(patterns, acl.Pattern(own.Users)) {
			message, flag = "another hub subscribes to the channels of other groups", "--group-prefix"
			switch {
			case len(patterns) == 1:
				message = "another hub does not subscribe to the channels of groups"
			case own.Groups == "":
				message = "another hub subscribes to the channels of groups"
			}
		}
		r.log.Warn(message+", a page that moves between the two receives a gap",
			"hub", other.Name, "channels", strings.Join(patterns, " "), "hint", "set the same "+flag+" for all hubs that use this control channel")
	}
	if other.Version != version {
		r.log.Warn("another hub runs another version", "hub", other.Name, "version", other.Version, "own_version", version)
	}
}

// runIDUnknown logs once that the server does not report its run_id, unless it was logged that INFO is not available.
func (r *reporter) runIDUnknown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused[acl.PermissionInfo.Command] {
		return
	}
	r.refused[acl.PermissionInfo.Command] = true
	r.log.Warn("redis does not report its run_id, ids are valid on this hub only",
		"hint", "use a server whose INFO contains run_id; a proxy may remove it")
}

// missing logs that a permission is missing or a command is unknown, and the consequence. unknown is the level of the latter.
func (r *reporter) missing(which acl.Permission, user string, err error, unknown slog.Level) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused[which.Command] {
		return
	}
	r.refused[which.Command] = true
	if goredis.IsPermissionError(err) {
		r.log.Warn("redis permission missing", "command", which.Command,
			"consequence", which.Consequence, "hint", "ACL SETUSER "+user+" "+which.Grant)
		return
	}
	r.log.Log(context.Background(), unknown, "redis command unavailable", "command", which.Command,
		"consequence", which.Consequence, "error", topology.Shown(err))
}

// malformedControl logs at most once per minute how many control commands were malformed, and why
// the latest one was. err contains nothing of the command.
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
	attrs := []any{"reason", f.Reason}
	if f.Advice != "" {
		attrs = append(attrs, "hint", f.Advice)
	}
	return append(attrs, "error", f.Text())
}
