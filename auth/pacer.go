package auth

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

// A pacer sets the limit of calls in flight from the time that they take. docs/decisions/0036-adaptive-limit.md
// explains the rule. It is guarded by its owner's lock.
//
// An app with w workers that needs the time base for one call needs base * n / w for n > w simultaneous calls. The
// pacer searches for the limit at which a call takes twice base: all workers are busy, and as many calls are queued in
// the app. This tolerates an error of half in base, and keeps the app's queue short.
type pacer struct {
	ceiling int           // the limit is never higher
	timeout time.Duration // of a call
	limit   int
	rate    float64 // calls per second that the app is expected to answer; 0: unknown

	base      time.Duration // what a call takes without a queue in the app; 0: unknown
	baseCount int           // samples in it, at most maxBaseSamples
	baseTime  time.Time     // when it was last confirmed
	latency   time.Duration // of the previous round
	previous  measurement   // the previous round
	late      time.Time     // end of the last round in which all calls timed out
	growing   bool          // the limit was raised by half or more, so the next round is short

	round   round // calls that were sent at the limit
	number  int   // of the round
	settled bool  // a call of this round has ended, so that the app's queue now reflects the limit
	most    int   // maximum number of calls in flight in this round
	low     round // calls that were sent far below the limit
	restore int   // the limit to restore after the measurement of base; 0 if none is in progress
}

// A sending is a call at the moment when it was sent.
type sending struct {
	at      time.Time
	round   int  // its number
	atLimit bool // it was sent at the limit, in a settled round
	low     bool // it was sent far below the limit
}

// A measurement is the median duration of calls with a given number of them in flight.
type measurement struct {
	inFlight int
	took     time.Duration
}

// A round is a series of calls with their durations.
type round []sample

type sample struct {
	address netip.Addr
	took    time.Duration
}

const (
	startLimit     = 2
	minSamples     = 4 // of a short round
	maxBaseSamples = 32

	// A round is extended, up to moreSamples times its length, while the relative error of its mean is above maxError.
	maxError    = 0.12
	moreSamples = 4

	// baseInterval is how often base is measured while the app has a queue.
	baseInterval = 30 * time.Second

	// lateTime is how long after a round of timeouts the limit is not raised as an experiment.
	lateTime = time.Minute
)

func newPacer(ceiling int, timeout time.Duration) pacer {
	return pacer{ceiling: ceiling, timeout: timeout, limit: min(startLimit, ceiling), growing: true, number: 1}
}

// send records that a call is sent now and is number inFlight of the calls in flight.
func (p *pacer) send(inFlight int, now time.Time) sending {
	s := sending{at: now, round: p.number, low: inFlight <= max(1, max(p.limit, p.restore)/3)}
	if inFlight >= p.limit-1 { // a source is not always allowed to use the last slot
		p.most = max(p.most, inFlight)
		s.atLimit = p.settled
	}
	return s
}

// slow returns the duration from which on a call is slow compared with others.
func (p *pacer) slow() time.Duration {
	if p.base == 0 {
		return p.timeout
	}
	return min(p.timeout, 2*max(p.target(), p.latency))
}

// target returns the latency for which the pacer sets the limit.
func (p *pacer) target() time.Duration { return min(2*p.base, (p.base+p.timeout)/2) }

// observe records the duration of a call. An outlier, compared with calls of other addresses, does not count for base.
// It reports whether the limit and the rate have changed.
func (p *pacer) observe(s sending, address netip.Addr, took time.Duration, outlier bool, now time.Time) bool {
	short, long := max(minSamples, p.limit), max(2*minSamples, 2*p.limit)
	if s.low && !outlier {
		if p.low.add(sample{address, took}, 3*minSamples, p.clip()) {
			latency := p.low.summary(p.clip())
			p.learn(latency, len(p.low), now)
			p.low = nil
			if p.restore > 0 {
				p.start(p.restore)
				p.restore = 0
			}
		}
	}
	if s.round != p.number || p.restore > 0 {
		return false
	}
	p.settled = true
	need := long
	if p.growing || p.limit <= startLimit {
		need = short
	}
	if !s.atLimit || !p.round.add(sample{address, took}, need, p.clip()) {
		return false
	}
	p.adjust(now)
	return true
}

// clip returns the maximum duration that counts for a call. At this latency the limit is halved, which is the largest
// decrease per round.
func (p *pacer) clip() time.Duration {
	if p.base == 0 {
		return p.timeout
	}
	return min(p.timeout, 4*p.base)
}

// learn moves base towards a latency that was measured without a queue in the app.
func (p *pacer) learn(latency time.Duration, samples int, now time.Time) {
	if latency >= p.timeout {
		return
	}
	if latency < p.base/2 { // the app has become faster
		p.baseCount = 0
	}
	p.base += (latency - p.base) * time.Duration(samples) / time.Duration(samples+p.baseCount)
	p.baseCount = min(p.baseCount+samples, maxBaseSamples)
	p.baseTime = now
}

// start begins a round with a new limit.
func (p *pacer) start(limit int) {
	p.limit = min(max(limit, 1), p.ceiling)
	p.number++
	p.settled, p.most, p.round = false, 0, nil
}

// restart discards the measurements except base, and makes the next rounds short.
func (p *pacer) restart() {
	p.rate, p.growing, p.late = 0, true, time.Time{}
	p.start(p.limit)
}

// adjust ends a round.
func (p *pacer) adjust(now time.Time) {
	latency := p.round.summary(p.clip())
	usual := p.round.summary(p.timeout)
	n := p.most
	switch {
	case latency >= p.timeout, p.round.median() >= p.timeout:
		p.late = now
	case p.base > 0 && p.isOutdated(n):
		// The app has become slower, or base was measured with faster calls, such as those without a session.
		p.base, p.baseCount, p.baseTime = p.round.median(), len(p.round), now
		latency = p.base
	case p.base == 0, latency < p.base, n <= startLimit && p.baseCount < maxBaseSamples:
		p.learn(latency, len(p.round), now)
	case latency < p.base+p.base/4:
		p.baseTime = now
	}
	p.latency, p.previous = latency, measurement{n, p.round.median()}
	free := p.base > 0 && latency < p.base+p.base/4 // no queue in the app
	next := n / 2
	if p.base > 0 {
		wanted := float64(n) * min(max(float64(p.target())/float64(latency), 0.5), 2)
		if next = int(math.Round(wanted)); n <= 2*startLimit {
			next = int(math.Ceil(wanted - 0.1)) // with Round, a small limit would never grow
		}
	}
	if free && next <= n && now.Sub(p.late) > lateTime {
		next = n + 1 // base is near the timeout
	}
	before := p.limit
	p.start(next)
	p.growing = 2*p.limit >= 3*before
	p.rate = float64(n) / usual.Seconds()
	if free { // the capacity is not known yet, because the app was not saturated
		p.rate = float64(p.ceiling) / usual.Seconds()
	}
	if now.Sub(p.baseTime) > baseInterval && p.limit > 1 {
		p.restore = p.limit
		p.low = nil
		p.start(p.limit / 3)
	}
}

// isOutdated reports whether the round, with n calls in flight, shows that calls take longer than base even without a
// queue in the app. It compares in two ways: even an app with one worker should not take longer than n times base. And
// if calls do not take longer with 1.5 times as many in flight, they are not queued.
func (p *pacer) isOutdated(n int) bool {
	took := p.round.median()
	if n <= startLimit && took > time.Duration(n)*(p.base+p.base/4) {
		return true
	}
	few, many := p.previous, measurement{n, took}
	if few.inFlight > many.inFlight {
		few, many = many, few
	}
	return took > p.base+p.base/4 && few.inFlight > 0 && 2*many.inFlight >= 3*few.inFlight && many.took < few.took+few.took/10
}

// add reports whether the round is complete.
func (r *round) add(s sample, need int, clip time.Duration) bool {
	*r = append(*r, s)
	return len(*r) >= moreSamples*need || len(*r) >= need && r.error(clip) <= maxError
}

// error returns the relative standard error of the mean.
func (r round) error(clip time.Duration) float64 {
	var n, sum, squares float64
	for _, s := range r {
		n++
		x := min(s.took, clip).Seconds()
		sum, squares = sum+x, squares+x*x
	}
	if sum == 0 {
		return 0
	}
	mean := sum / n
	return math.Sqrt(max(0, squares/n-mean*mean)/n) / mean
}

// median returns the middle latency, one per address.
func (r round) median() time.Duration {
	byAddress := make(map[netip.Addr][]time.Duration)
	for _, s := range r {
		byAddress[s.address] = append(byAddress[s.address], s.took)
	}
	var all []time.Duration
	for _, took := range byAddress {
		all = append(all, middle(took))
	}
	return middle(all)
}

func middle(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)/2]
}

// summary returns the mean latency. Each address has the same weight, and a call counts for clip at most. The highest of
// several addresses is ignored, because one slow user does not mean that the app is slow.
func (r round) summary(clip time.Duration) time.Duration {
	type vote struct {
		sum   time.Duration
		count int
	}
	votes := make(map[netip.Addr]vote)
	for _, s := range r {
		v := votes[s.address]
		votes[s.address] = vote{v.sum + min(s.took, clip), v.count + 1}
	}
	var sum, highest time.Duration
	for _, v := range votes {
		average := v.sum / time.Duration(v.count)
		sum, highest = sum+average, max(highest, average)
	}
	count := len(votes)
	if count > 1 {
		sum, count = sum-highest, count-1
	}
	return max(1, sum/time.Duration(count))
}
