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
// An app with w workers that needs the time base for a call answers n > w calls at once in base * n / w. The pacer
// looks for the limit at which a call takes twice base: all workers are busy, and as many calls wait for them. That
// leaves room for an error in base of half, and keeps the app's queue short.
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
	late      time.Time     // the end of a round in which all calls took too long
	growing   bool          // the limit was raised by half or more: the next round is short

	round   round // calls that were sent at the limit
	number  int   // of the round
	settled bool  // a call of this round was answered: the app's queue is what the limit makes it
	most    int   // calls in flight in this round
	low     round // calls that were sent far below the limit
	restore int   // the limit to return to after base has been measured; 0: it is not being measured
}

// A sending is a call at the moment when it was sent.
type sending struct {
	at      time.Time
	round   int  // its number
	atLimit bool // it was sent at the limit, in a settled round
	low     bool // it was sent far below the limit
}

// measured is what calls took, in the middle, with a number of them in flight.
type measurement struct {
	inFlight int
	took     time.Duration
}

// A round is a number of calls with what they took.
type round []sample

type sample struct {
	address netip.Addr
	took    time.Duration
}

const (
	startLimit     = 2
	minSamples     = 4 // of a short round
	maxBaseSamples = 32

	// A round whose mean has a relative error above maxError is continued, up to moreSamples times its length.
	maxError    = 0.12
	moreSamples = 4

	// baseInterval is how often base is measured while the app has a queue.
	baseInterval = 30 * time.Second

	// lateTime is how long after a round of timeouts the limit is not raised on trial.
	lateTime = time.Minute
)

func newPacer(ceiling int, timeout time.Duration) pacer {
	return pacer{ceiling: ceiling, timeout: timeout, limit: min(startLimit, ceiling), growing: true, number: 1}
}

// send is for a call that is sent as the inFlight-th.
func (p *pacer) send(inFlight int, now time.Time) sending {
	s := sending{at: now, round: p.number, low: inFlight <= max(1, max(p.limit, p.restore)/3)}
	if inFlight >= p.limit-1 { // a source may not be allowed the last one
		p.most = max(p.most, inFlight)
		s.atLimit = p.settled
	}
	return s
}

// slow returns how long a call takes that is slow in comparison with others.
func (p *pacer) slow() time.Duration {
	if p.base == 0 {
		return p.timeout
	}
	return min(p.timeout, 2*max(p.target(), p.latency))
}

// target returns the latency that the limit is to lead to.
func (p *pacer) target() time.Duration { return min(2*p.base, (p.base+p.timeout)/2) }

// observe records how long a call took. outlier means that calls of other addresses take much less: then it
// does not count for base. It reports whether the limit and the rate have changed.
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

// clip returns what a call counts for at most: at this latency the limit is halved, which is the most that one round
// changes it.
func (p *pacer) clip() time.Duration {
	if p.base == 0 {
		return p.timeout
	}
	return min(p.timeout, 4*p.base)
}

// learn moves base towards what calls took without a queue in the app.
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

// restart forgets what the app can answer, except for base, and makes the next rounds short.
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
		// Or base was measured when calls took less, such as those of visitors without a session.
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
			next = int(math.Ceil(wanted - 0.1)) // rounded down, a small limit would never grow
		}
	}
	if free && next <= n && now.Sub(p.late) > lateTime {
		next = n + 1 // base is near the timeout
	}
	before := p.limit
	p.start(next)
	p.growing = 2*p.limit >= 3*before
	p.rate = float64(n) / usual.Seconds()
	if free { // nothing is known yet of how many more the app can answer
		p.rate = float64(p.ceiling) / usual.Seconds()
	}
	if now.Sub(p.baseTime) > baseInterval && p.limit > 1 {
		p.restore = p.limit
		p.low = nil
		p.start(p.limit / 3)
	}
}

// isOutdated reports whether the round, with n calls in flight, shows that a call takes longer than base without a
// queue: even one worker takes no longer than n times base; and if half as many calls again take no longer, none of
// them waits.
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

// summary returns the usual latency. Each address has one vote, a call counts for clip at most, and of several votes
// the highest does not count: slow users are not a slow app.
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
