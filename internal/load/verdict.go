package load

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

func (r *run) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

func (r *run) fault(format string, args ...any) {
	r.report.Faults = append(r.report.Faults, fmt.Sprintf(format, args...))
}

// check adds up what each stream has received.
func (r *run) check() {
	t := r.tally
	unconfirmed := r.sender.unconfirmed()
	t.lock()
	defer t.unlock()
	c := &r.report.Checks
	for i := range r.streams {
		s := &r.streams[i]
		var lost, announced uint64
		sequence := s.user
		if t.broadcast {
			sequence = 0
		}
		if s.state == open {
			lost, announced = s.ledger.missing(uint32(t.sequences[sequence].Load()>>32) - unconfirmed[sequence])
		} else {
			lost, announced = s.ledger.missing(s.ledger.highest)
		}
		c.Lost += int64(lost)
		c.LostAnnounced += int64(announced)
	}
	c.Duplicated, c.Misordered, c.WrongUser, c.Foreign = t.duplicated, t.late, t.wrongUser, t.foreign
	c.Gaps, c.Ended, c.MissingOnEnded = maps.Clone(t.gaps), maps.Clone(t.endedBy), t.missingOnEnded
}

// faults adds the failures of the run to the report, with advice if it is known.
func (r *run) faults() {
	c, checks := r.report.Connect, r.report.Checks
	if c.Failed > 0 {
		fault := count(c.Failed, "stream") + " failed to open (" + ByReason(c.FailedBy) + ")"
		if c.example != "" {
			fault += ", first response: " + c.example
		}
		for _, reason := range slices.Sorted(maps.Keys(c.FailedBy)) {
			if advice[reason] != "" {
				fault += ": " + advice[reason]
				break
			}
		}
		r.fault("%s", fault)
	}
	if c.Untried > 0 {
		r.note("%s not tried", count(c.Untried, "stream was", "streams were"))
	}
	if n := checks.Lost; n > 0 {
		r.fault("%s lost without a gap", count(n, "message was", "messages were"))
	}
	if n := checks.LostAnnounced; n > 0 {
		r.note("%s lost and announced by gaps", count(n, "message was", "messages were"))
	}
	if n := checks.Duplicated; n > 0 {
		r.fault("%s duplicated", count(n, "message was", "messages were"))
	}
	if n := checks.Misordered; n > 0 {
		r.fault("%s out of order", count(n, "message was", "messages were"))
	}
	if n := checks.WrongUser; n > 0 {
		r.fault("%s delivered to the wrong user", count(n, "message was", "messages were"))
	}
	if n := total(checks.Ended); n > 0 {
		r.fault("%s ended early, with %s outstanding: %s", count(n, "stream"), count(checks.MissingOnEnded, "message"), ByReason(checks.Ended))
	}
	if err := r.sender.err(); err != nil {
		r.fault("publishing stopped early: %v", err)
	}
	var noSubscriber, unconfirmed int64
	for _, l := range r.report.Loops {
		noSubscriber += l.NoSubscriber
		unconfirmed = l.Unconfirmed // of all that were sent so far
	}
	if r.sender.err() == nil && unconfirmed > 0 {
		r.fault("Redis has not confirmed %s: check that it is reachable and not stalled", count(unconfirmed, "message"))
	}
	if noSubscriber > 0 {
		r.note("%s published without a subscriber: check that the hub uses the same --redis", count(noSubscriber, "message was", "messages were"))
	}
	if r.report.Interrupted {
		r.note("interrupted: the results are incomplete")
	}
	if checks.Foreign > 0 {
		r.note("%s received from other publishers", count(checks.Foreign, "message was", "messages were"))
	}
}

// ByReason formats counts by reason: "3 connection refused, 1 timeout".
func ByReason[R ~string](m map[R]int64) string {
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[reason], reason))
	}
	return strings.Join(parts, ", ")
}

func total[R ~string](m map[R]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// count formats a number with its noun. With one form, the plural has an s. Otherwise many is the plural.
func count(n int64, one string, many ...string) string {
	what := one
	if n != 1 {
		if what += "s"; len(many) > 0 {
			what = many[0]
		}
	}
	return fmt.Sprintf("%d %s", n, what)
}
