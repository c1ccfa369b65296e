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

// check adds up what each stream has heard.
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
	c.Doubled, c.Misordered, c.WrongUser, c.Foreign = t.doubled, t.late, t.wrongUser, t.foreign
	c.Gaps, c.Ended, c.EndedMissing = maps.Clone(t.gaps), maps.Clone(t.endedBy), t.unended
}

// faults says what is wrong, and what to do about it where that is known.
func (r *run) faults() {
	c, checks := r.report.Connect, r.report.Checks
	if c.Failed > 0 {
		fault := count(c.Failed, "stream") + " failed to open (" + ByReason(c.FailedBy) + ")"
		if c.example != "" {
			fault += ", the first with " + c.example
		}
		for _, why := range slices.Sorted(maps.Keys(c.FailedBy)) {
			if advice := advices[why]; advice != "" {
				fault += ": " + advice
				break
			}
		}
		r.fault("%s", fault)
	}
	if c.Untried > 0 {
		r.note("%s not tried", count(c.Untried, "stream was", "streams were"))
	}
	if n := checks.Lost; n > 0 {
		r.fault("%s lost, and no gap announced it", count(n, "message was", "messages were"))
	}
	if n := checks.LostAnnounced; n > 0 {
		r.note("%s lost, as gaps have announced", count(n, "message was", "messages were"))
	}
	if n := checks.Doubled; n > 0 {
		r.fault("%s doubled", count(n, "message was", "messages were"))
	}
	if n := checks.Misordered; n > 0 {
		r.fault("%s out of order", count(n, "message was", "messages were"))
	}
	if n := checks.WrongUser; n > 0 {
		r.fault("%s delivered to the wrong user", count(n, "message was", "messages were"))
	}
	if n := total(checks.Ended); n > 0 {
		r.fault("%s ended before the run did, with %s outstanding: %s", count(n, "stream"), count(checks.EndedMissing, "message"), ByReason(checks.Ended))
	}
	if err := r.sender.err(); err != nil {
		r.fault("publishing ended early: %v", err)
	}
	var unheard, unconfirmed int64
	for _, l := range r.report.Loops {
		unheard += l.Unheard
		unconfirmed = l.Unconfirmed // of all that were sent so far
	}
	if r.sender.err() == nil && unconfirmed > 0 {
		r.fault("Redis has not confirmed %s: is it frozen, or cut off?", count(unconfirmed, "message"))
	}
	if unheard > 0 {
		r.note("%s published while nobody had subscribed: is the hub's --redis another one?", count(unheard, "message was", "messages were"))
	}
	if r.report.Interrupted {
		r.note("interrupted: this is what there was so far")
	}
	if checks.Foreign > 0 {
		r.note("%s of somebody else's came in between", count(checks.Foreign, "message"))
	}
}

// advices are what to do about streams that do not open.
var advices = map[string]string{
	"busy: user-limit":      "start the hub with --max-clients-per-user 0, or use more --users",
	"busy: clients":         "the hub is full: raise its --max-clients or its descriptor limit",
	"connection refused":    "is a hub listening there?",
	"no local port is left": "give --from 127.0.0.1 --from 127.0.0.2, or --http2",
	"no TLS there":          "use http://",
	"status 401":            "give what log-in needs as --header, with {user} in it",
	"status 404":            "is the --url that of the stream?",

	"certificate signed by an unknown authority": "trust it with SSL_CERT_FILE=<its PEM file> in the environment, or use --insecure",
	"certificate for another name":               "use the name of the certificate in --url, or --insecure",
	errNoCleartextHTTP2.Error():                  "use https://, or leave out --http2",
}

// ByReason is a count by reason in words: "3 connection refused, 1 timeout".
func ByReason(m map[string]int64) string {
	var parts []string
	for _, why := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%d %s", m[why], why))
	}
	return strings.Join(parts, ", ")
}

func total(m map[string]int64) (n int64) {
	for _, v := range m {
		n += v
	}
	return n
}

// count is a number and what it counts: one word that takes an s, or both forms.
func count(n int64, one string, many ...string) string {
	what := one
	if n != 1 {
		if what += "s"; len(many) > 0 {
			what = many[0]
		}
	}
	return fmt.Sprintf("%d %s", n, what)
}
