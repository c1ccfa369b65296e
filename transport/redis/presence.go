package redis

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/lease"
	"usercast/transport/redis/internal/pause"
)

const (
	// defaultLease is how long a user stays online after the last extension of its lease. It is three times
	// defaultExtendEvery, so that two extensions may fail.
	defaultLease       = 30 * time.Second
	defaultExtendEvery = 10 * time.Second
	// defaultSweepEvery is the time between two removals of users whose lease has ended, ±10 %. A user that has left is
	// removed within 31 + 5.5 s: the contract allows 40 s.
	defaultSweepEvery = 5 * time.Second
	// defaultGather is how long users who arrive are gathered for one script.
	defaultGather = 100 * time.Millisecond
)

// A PresenceHub is the hub whose users are online; *hub.Hub implements it.
type PresenceHub interface {
	// NotifyArrivals makes the hub record users who open their first stream. wake must not block.
	NotifyArrivals(wake func())
	// Arrivals returns the users who were recorded since the previous call. all means that some were not recorded.
	Arrivals() (users []string, all bool)
	// Users returns the users with a stream in one of hub.UserParts parts.
	Users(part int) []string
}

// PresenceConfig configures a Presence.
type PresenceConfig struct {
	Commands *Commands   // required; all hubs must use the same Redis
	Hub      PresenceHub // required
	Prefix   string      // of users' channels; default "user-"

	// Logger receives one line for each change of state. Default: none.
	Logger *slog.Logger

	// Zero means the default. Tests change them. The scores are whole seconds, and so are lease and twice sweepEvery.
	lease, extendEvery, sweepEvery, gather time.Duration
}

// A Presence keeps the set of users that are online on any hub, for apps and for the admin API: the sorted set
// PresenceKey, and messages on PresenceChannel. Streams do not depend on it. Call Run once; the other methods are safe for
// concurrent use.
type Presence struct {
	// Immutable after NewPresence.
	cfg      PresenceConfig
	commands *Commands
	set      lease.Set
	report   *reporter

	online atomic.Int64 // see Users
}

// PresenceKey is the key of the sorted set for hubs with a prefix. A member is a user, its score the Unix time in seconds up to
// which the user is known to be online.
func PresenceKey(prefix string) string { return lease.KeysOf(prefix).Users }

// PresenceChannel is the channel on which transitions are published for hubs with a prefix.
func PresenceChannel(prefix string) string { return lease.KeysOf(prefix).Channel }

// ValidatePresence returns why hubs with a prefix cannot use a Presence, or nil.
func ValidatePresence(prefix string) error { return lease.KeysOf(prefix).Validate() }

// NewPresence does not connect: Run does.
func NewPresence(cfg PresenceConfig) (*Presence, error) {
	cfg.Prefix = cmp.Or(cfg.Prefix, defaultPrefix)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.lease = cmp.Or(cfg.lease, defaultLease)
	cfg.extendEvery = cmp.Or(cfg.extendEvery, defaultExtendEvery)
	cfg.sweepEvery = cmp.Or(cfg.sweepEvery, defaultSweepEvery)
	cfg.gather = cmp.Or(cfg.gather, defaultGather)
	errs := []error{ValidatePresence(cfg.Prefix)}
	if cfg.Commands == nil {
		errs = append(errs, errors.New("PresenceConfig.Commands is required"))
	}
	if cfg.Hub == nil {
		errs = append(errs, errors.New("PresenceConfig.Hub is required"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Presence{
		cfg:      cfg,
		commands: cfg.Commands,
		set:      lease.Set{Keys: lease.KeysOf(cfg.Prefix), Length: cfg.lease, Pause: 2 * cfg.sweepEvery},
		report:   &reporter{log: cfg.Logger.With("redis", cfg.Commands.server.Name()), refused: make(map[string]bool)},
	}, nil
}

// Online returns which of the users are online, in the same order.
func (p *Presence) Online(ctx context.Context, users []string) (online []string, err error) {
	err = p.do(ctx, func(redis goredis.Cmdable) error {
		online, err = p.set.Online(ctx, redis, users)
		return err
	})
	return online, p.denied(err, "+time +zmscore ~")
}

// Count returns how many users are online.
func (p *Presence) Count(ctx context.Context) (n int, err error) {
	err = p.do(ctx, func(redis goredis.Cmdable) error {
		n, err = p.set.Count(ctx, redis)
		return err
	})
	return n, p.denied(err, "+time +zcount ~")
}

func (p *Presence) denied(err error, grant string) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return p.commands.server.Denied(err, "read "+p.set.Users, grant+acl.Escape(p.set.Users))
}

// Users returns how many users were online at the newest sweep of this hub, 0 before.
func (p *Presence) Users() int { return int(p.online.Load()) }

func (p *Presence) do(ctx context.Context, run func(goredis.Cmdable) error) error {
	return p.commands.doKey(ctx, p.set.Users, run)
}

// Run extends the leases of the hub's users and removes those that have ended until ctx ends. An unavailable Redis is not an
// error. At the end it does not remove the hub's users: they may have reconnected to another hub.
func (p *Presence) Run(ctx context.Context) {
	wake := make(chan struct{}, 1)
	p.cfg.Hub.NotifyArrivals(func() { poke(wake) })
	now := time.Now()
	e := extender{Presence: p, next: now, backoff: pause.Backoff{Min: defaultBackoffMin, Max: defaultBackoffMax}}
	sweepAt, sweepLog := now, logLimiter{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-wake:
			e.arrived()
		case <-timer.C:
			e.step(ctx)
			if !time.Now().Before(sweepAt) {
				sweepAt = time.Now().Add(p.sweep(ctx, &sweepLog))
			}
		}
		timer.Reset(time.Until(earlier(e.due(), sweepAt)))
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// sweep removes users whose lease has ended. It returns the time until the next sweep.
func (p *Presence) sweep(ctx context.Context, log *logLimiter) time.Duration {
	var result lease.Sweep
	err := p.do(ctx, func(redis goredis.Cmdable) (err error) {
		result, err = p.set.Sweep(ctx, redis)
		return err
	})
	if p.failed(ctx, log, err, result.Refused) {
		return pause.Jitter(p.cfg.sweepEvery)
	}
	p.online.Store(int64(result.Online))
	if result.More {
		return 0
	}
	return pause.Jitter(p.cfg.sweepEvery)
}

// failed logs the error of a script. It reports whether there was one; messages that Redis refuses to publish do not count.
func (p *Presence) failed(ctx context.Context, log *logLimiter, err error, refused lease.Refused) bool {
	switch {
	case err == nil:
		if refused.Messages > 0 {
			p.missing(p.set.PermissionPublish(), refused.Err)
		}
		*log = logLimiter{}
		return false
	case ctx.Err() != nil:
		return true
	case isRefusal(err):
		denied := false
		if p.do(ctx, func(redis goredis.Cmdable) error {
			return p.set.Check(ctx, redis, func(which acl.Permission, err error) {
				denied = true
				p.missing(which, err)
			})
		}); denied {
			return true
		}
	}
	if f := p.commands.server.Fault(err, false); log.allow(f, time.Now()) {
		p.report.log.Warn("presence update failed, retrying", faultAttrs(f)...)
	}
	return true
}

// isRefusal reports whether an error reply will not change soon.
func isRefusal(err error) bool { return acl.IsReply(err) && !acl.IsTemporary(err) && !isElsewhere(err) }

func (p *Presence) missing(which acl.Permission, err error) {
	p.report.missing(which, p.commands.server.UserName(), err)
}

// An extender extends the leases of the hub's users: of all in turn within extendEvery, and of those who arrive. It belongs to
// Run.
type extender struct {
	*Presence
	backoff pause.Backoff
	log     logLimiter

	part     int       // the next part of the hub's users
	next     time.Time // when it is due
	hurry    bool      // the other parts of this pass are due immediately, because leases may end soon
	arrivals time.Time // when the recorded arrivals are due; zero: none are recorded
}

// due returns when step has something to do.
func (e *extender) due() time.Time {
	if e.arrivals.IsZero() {
		return e.next
	}
	return earlier(e.arrivals, e.next)
}

// arrived is called when the hub has recorded an arrival.
func (e *extender) arrived() {
	if e.arrivals.IsZero() {
		e.arrivals = time.Now().Add(e.cfg.gather)
	}
}

// step does what is due.
func (e *extender) step(ctx context.Context) {
	now := time.Now()
	if !e.arrivals.IsZero() && !now.Before(e.arrivals) {
		e.arrivals = time.Time{}
		users, all := e.cfg.Hub.Arrivals()
		slices.Sort(users)
		if !e.extend(ctx, slices.Compact(users)) {
			return
		}
		if all {
			e.part, e.next, e.hurry = 0, now, true
		}
	}
	if now.Before(e.next) {
		return
	}
	// With few users, all parts are in one batch.
	var users []string
	parts := 0
	for len(users) < lease.Batch && e.part+parts < hub.UserParts {
		users = append(users, e.cfg.Hub.Users(e.part+parts)...)
		parts++
	}
	if !e.extend(ctx, users) {
		return
	}
	if !e.hurry {
		e.next = e.next.Add(pause.Jitter(e.cfg.extendEvery * time.Duration(parts) / hub.UserParts))
	}
	if e.part += parts; e.part == hub.UserParts {
		e.part = 0
		if e.hurry {
			e.hurry, e.next = false, time.Now().Add(pause.Jitter(e.cfg.extendEvery/hub.UserParts))
		}
	}
}

// extend extends the leases of users. If that fails, it returns false, and a new pass begins after a pause.
func (e *extender) extend(ctx context.Context, users []string) bool {
	for batch := range slices.Chunk(users, lease.Batch) {
		var refused lease.Refused
		err := e.do(ctx, func(redis goredis.Cmdable) (err error) {
			refused, err = e.set.Extend(ctx, redis, batch)
			return err
		})
		if e.failed(ctx, &e.log, err, refused) {
			wait := e.backoff.Next()
			if isRefusal(err) {
				wait = pause.Jitter(e.cfg.extendEvery)
			}
			e.part, e.next, e.hurry = 0, time.Now().Add(wait), true
			if !e.arrivals.IsZero() {
				e.arrivals = e.next
			}
			return false
		}
		e.backoff.Reset()
	}
	return true
}
