package redis

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/lease"
	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
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

	// Zero means the default. Tests change them. The scores are whole seconds, and so is lease.
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
	wake     chan struct{} // one slot, from the hub to Run: users have arrived

	online atomic.Int64 // see Users; negative: not known
	lapsed atomic.Int64 // when the leases of this hub's users end, in Unix ns, if the newest update failed; zero: it succeeded
}

// PresenceKey is the key of the sorted set for hubs with a prefix. A member is a user, its score the Unix time in seconds up to
// which the user is known to be online.
func PresenceKey(prefix string) string { return lease.KeysOf(prefix).Users }

// PresenceChannel is the channel on which transitions are published for hubs with a prefix.
func PresenceChannel(prefix string) string { return lease.KeysOf(prefix).Channel }

// ValidatePresence returns why hubs with a prefix cannot use a Presence, or nil.
func ValidatePresence(prefix string) error { return lease.KeysOf(prefix).Validate() }

// NewPresence returns a Presence that has not connected: Run does. From now on, the hub records arrivals.
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
	p := &Presence{
		cfg:      cfg,
		commands: cfg.Commands,
		set:      lease.Set{Keys: lease.KeysOf(cfg.Prefix), Length: cfg.lease, Pause: cfg.sweepEvery * 5 / 2},
		report:   &reporter{log: cfg.Logger.With("redis", cfg.Commands.server.Name()), refused: make(map[string]bool)},
		wake:     make(chan struct{}, 1),
	}
	p.online.Store(-1)
	cfg.Hub.NotifyArrivals(func() { poke(p.wake) })
	return p, nil
}

// errNotRecorded is returned instead of users who may be missing.
var errNotRecorded = errors.New("this hub cannot record its own users; its log says why")

// Online returns which of the users are online, in the same order. After an outage, users whose lease has ended are online until
// hubs have had the time to extend it. It fails if Redis does not reply, and if this hub has not recorded its own users for
// longer than a lease.
func (p *Presence) Online(ctx context.Context, users []string) (online []string, err error) {
	online, err = p.set.Online(ctx, p.do(ctx), users)
	return online, p.readError(err, "+time +zmscore +get")
}

// Count returns how many users are online. It fails as Online does.
func (p *Presence) Count(ctx context.Context) (n int, err error) {
	n, err = p.set.Count(ctx, p.do(ctx))
	return n, p.readError(err, "+time +zcount +get")
}

// readError returns why what was read is not used, or nil. commands are those that reading needs.
func (p *Presence) readError(err error, commands string) error {
	if lapsed := p.lapsed.Load(); err == nil && lapsed != 0 && time.Now().UnixNano() > lapsed {
		return errNotRecorded
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	if f := p.wrongType(err); f != nil {
		return f
	}
	_, keys := p.set.Grants()
	return p.commands.server.Denied(err, "read "+p.set.Users, commands+" "+keys)
}

// wrongType returns the fault of a key that another program uses, or nil for other errors. Redis 6 quotes the reply to a command
// of a script within another one.
func (p *Presence) wrongType(err error) *topology.Fault {
	if !acl.IsReply(err) || !strings.Contains(err.Error(), "WRONGTYPE") {
		return nil
	}
	return &topology.Fault{
		Reason: "type", Problem: "the key " + p.set.Users + " or " + p.set.Swept + " has another type than hubs use",
		Advice: "delete that key, or use another --channel-prefix", Err: err,
	}
}

// Users returns how many users were online at the newest sweep of this hub. ok is false if there was none, or if it failed.
func (p *Presence) Users() (n int, ok bool) {
	n = int(p.online.Load())
	return max(n, 0), n >= 0
}

// do returns how scripts and commands are run.
func (p *Presence) do(ctx context.Context) lease.Do {
	return func(run func(goredis.Cmdable) error) error { return p.commands.doKey(ctx, p.set.Users, run) }
}

// Run extends the leases of the hub's users and removes those that have ended until ctx ends. An unavailable Redis is not an
// error. At the end it does not remove the hub's users: they may have reconnected to another hub.
func (p *Presence) Run(ctx context.Context) {
	r := p.start()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			r.arrived()
		case <-timer.C:
			r.step(ctx)
		}
		timer.Reset(time.Until(r.due()))
	}
}

// start returns the state of a Run that begins.
func (p *Presence) start() *presenceRun {
	now := time.Now()
	r := &presenceRun{Presence: p, nextPart: now, nextSweep: now, recorded: now.Add(-p.cfg.lease), backoff: pause.Backoff{Min: defaultBackoffMin, Max: defaultBackoffMax}}
	for part := range r.extended {
		r.extended[part] = now
	}
	return r
}

// A presenceRun is the state of Run. It belongs to the goroutine of Run.
type presenceRun struct {
	*Presence
	backoff pause.Backoff
	failing [2]bool // whether the last attempt of each script failed
	failed  bool    // one has failed, and the recovery was not logged
	log     logLimiter

	recorded time.Time // when leases were last extended; at first, a lease before the run
	from     int64     // see lease.Sweep.From; zero: this run has not removed users yet

	// The leases of all users are extended in turn, one part of the hub's users after another.
	part     int
	nextPart time.Time                // when it is due
	hurry    int                      // so many parts are due immediately, because leases may end soon
	extended [hub.UserParts]time.Time // when each part was last extended; at first, when Run began

	arrivals  time.Time // when the recorded arrivals are due; zero: none are recorded
	nextSweep time.Time
}

// The indexes of presenceRun.failing.
const (
	scriptExtend = iota
	scriptSweep
)

// due returns when step has something to do.
func (r *presenceRun) due() time.Time {
	due := r.nextPart
	if r.nextSweep.Before(due) {
		due = r.nextSweep
	}
	if !r.arrivals.IsZero() && r.arrivals.Before(due) {
		due = r.arrivals
	}
	return due
}

// arrived is called when the hub has recorded an arrival. After a failure, arrivals wait for the next attempt.
func (r *presenceRun) arrived() {
	switch {
	case r.failing[scriptExtend]:
		r.arrivals = r.nextPart
	case r.arrivals.IsZero():
		r.arrivals = time.Now().Add(r.cfg.gather)
	}
}

// step does what is due. Each of its parts runs few scripts, so that a pass over many users does not delay arrivals.
func (r *presenceRun) step(ctx context.Context) {
	if isDue(r.arrivals) && !r.arrivals.IsZero() {
		r.extendArrivals(ctx)
	}
	if isDue(r.nextPart) {
		r.extendPart(ctx)
	}
	if isDue(r.nextSweep) {
		r.sweep(ctx)
	}
}

func isDue(t time.Time) bool { return !time.Now().Before(t) }

func (r *presenceRun) extendArrivals(ctx context.Context) {
	r.arrivals = time.Time{}
	users, all := r.cfg.Hub.Arrivals()
	slices.Sort(users)
	if r.extend(ctx, slices.Compact(users)) && all {
		r.hurry, r.nextPart = hub.UserParts, time.Now()
	}
}

// extendPart extends the leases of the users of one part, or of as many parts as fit into one script.
func (r *presenceRun) extendPart(ctx context.Context) {
	if time.Since(r.nextPart) > r.cfg.extendEvery { // this process was stopped, or Redis is slow
		r.hurry, r.nextPart = hub.UserParts, time.Now()
	}
	start := time.Now()
	users := r.cfg.Hub.Users(r.part)
	parts := 1
	for r.part+parts < hub.UserParts && len(users) < lease.Batch {
		more := r.cfg.Hub.Users(r.part + parts)
		if len(users)+len(more) > lease.Batch {
			break
		}
		users = append(users, more...)
		parts++
	}
	if !r.extend(ctx, users) {
		return
	}
	for part := r.part; part < r.part+parts; part++ {
		r.extended[part] = start
	}
	if len(users) == 0 && parts == hub.UserParts { // there is nothing to extend
		r.failing[scriptExtend] = false
		r.lapsed.Store(0)
	}
	r.part = (r.part + parts) % hub.UserParts
	if r.hurry > 0 {
		r.hurry, r.nextPart = max(0, r.hurry-parts), time.Now()
	}
	if r.hurry > 0 {
		return
	}
	r.nextPart = r.nextPart.Add(pause.Jitter(r.cfg.extendEvery * time.Duration(parts) / hub.UserParts))
	// In the pass before, this part may have been in a script with earlier ones, because the hub had fewer users.
	if latest := r.extended[r.part].Add(r.cfg.extendEvery + r.cfg.extendEvery/10); latest.Before(r.nextPart) {
		r.nextPart = latest
	}
}

// extend extends the leases of users. If that fails, it returns false, and after a pause the leases of all users are extended.
func (r *presenceRun) extend(ctx context.Context, users []string) bool {
	for batch := range slices.Chunk(users, lease.Batch) {
		refused, err := r.set.Extend(ctx, r.do(ctx), batch)
		if r.succeeded(ctx, scriptExtend, err, refused) {
			r.backoff.Reset()
			continue
		}
		wait := r.backoff.Next()
		if isRefusal(err) {
			wait = pause.Jitter(r.cfg.extendEvery)
		}
		r.hurry, r.nextPart = hub.UserParts, time.Now().Add(wait)
		if !r.arrivals.IsZero() {
			r.arrivals = r.nextPart
		}
		return false
	}
	return true
}

// sweep removes users whose lease has ended, and counts the others.
func (r *presenceRun) sweep(ctx context.Context) {
	result, err := r.set.Sweep(ctx, r.do(ctx))
	r.nextSweep = time.Now().Add(pause.Jitter(r.cfg.sweepEvery))
	if !r.succeeded(ctx, scriptSweep, err, result.Refused) {
		r.online.Store(-1)
		return
	}
	r.online.Store(int64(result.Online))
	if result.More {
		r.nextSweep = time.Now()
	}
	if r.from != 0 && r.from != result.From && !r.failing[scriptExtend] { // Redis was down, or has lost the set
		r.hurry, r.nextPart = hub.UserParts, time.Now()
	}
	r.from = result.From
}

// succeeded reports whether a script succeeded, and logs why not. Messages that Redis refuses to publish do not matter.
func (r *presenceRun) succeeded(ctx context.Context, script int, err error, refused lease.Refused) bool {
	if ctx.Err() != nil {
		return err == nil
	}
	r.failing[script] = err != nil
	if script == scriptExtend {
		r.setRecorded(err == nil)
	}
	if refused.Messages > 0 {
		r.missing(r.set.PermissionPublish(), refused.Err)
	}
	if err == nil {
		if r.failing == [2]bool{} {
			if r.failed {
				r.report.log.Info("presence update recovered")
			}
			r.failed, r.log = false, logLimiter{}
		}
		return true
	}
	r.failed = true
	if isRefusal(err) && r.reportMissing(ctx) {
		return false
	}
	f := r.wrongType(err)
	if f == nil {
		f = r.commands.server.Fault(err, false)
	}
	if r.log.allow(f, time.Now()) {
		r.report.log.Warn("presence update failed, retrying", append([]any{"key", r.set.Users}, faultAttrs(f)...)...)
	}
	return false
}

// setRecorded stores whether leases could be extended, for readError.
func (r *presenceRun) setRecorded(ok bool) {
	if !ok {
		r.lapsed.Store(r.recorded.Add(r.cfg.lease).UnixNano())
		return
	}
	r.recorded = time.Now()
	r.lapsed.Store(0)
}

// isRefusal reports whether an error reply will not change soon.
func isRefusal(err error) bool {
	return acl.IsReply(err) && !acl.IsTemporary(err) && !isElsewhere(err) && !goredis.HasErrorPrefix(err, "TRYAGAIN")
}

// reportMissing logs the permissions that are missing, each once per process, and reports whether any is.
func (r *presenceRun) reportMissing(ctx context.Context) (missing bool) {
	err := r.set.Check(ctx, r.do(ctx), func(which acl.Permission, err error) {
		missing = true
		r.missing(which, err)
	})
	return missing && err == nil
}

func (p *Presence) missing(which acl.Permission, err error) {
	p.report.missing(which, p.commands.server.UserName(), err, slog.LevelWarn)
}
