package auth

import (
	"container/list"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A limiter decides when a check is sent to the app. Its pacer adapts the number of checks in flight to what the app
// can answer; the limiter queues the others and shares the turns fairly between client addresses. It is safe for
// concurrent use and starts no goroutine.
type limiter struct {
	mu       sync.Mutex // guards everything below
	pacer    pacer
	inFlight int
	waiting  int
	sources  map[netip.Addr]*source // those with a check in flight or waiting
	idle     list.List              // of *source: checks wait and none is in flight; the next one first
	active   []*source              // a check is in flight
	turns    uint64                 // number of turns so far
	healthy  [2]answered            // the last two addresses with an answer in normal time, the newest first
}

// A source is a client address.
type source struct {
	address  netip.Addr
	inFlight int
	queue    list.List     // of *turn, the oldest first
	idle     *list.Element // in limiter.idle
	trust    trust
	lastTurn uint64 // orders the sources with checks in flight
}

// trust decides how many of all checks in flight may be of one source.
type trust int

const (
	trustSlow trust = iota // its last check took much longer than those of others: a quarter
	trustNew               // half
	trustFast              // all, or all but one if there are other sources
)

// A turn is a check that waits or is in flight.
type turn struct {
	source  *source
	waiting *list.Element // in source.queue; nil: it does not wait
	ready   chan struct{} // closed when the wait is over
	err     error         // set before that: why it must not be sent
	sent    sending
}

// answered says when an address got an answer.
type answered struct {
	address netip.Addr
	at      time.Time
}

const (
	// turnTime is the longest expected wait for a turn: a check for which it is longer is rejected.
	turnTime = 10 * time.Second

	// maxTurnTime is the longest wait, for an app that becomes slower meanwhile.
	maxTurnTime = 20 * time.Second

	// maxWaiting bounds how many checks wait for their turn.
	maxWaiting = 32 << 10

	// healthyTime is how long after an answer in normal time an address is evidence that the app works.
	healthyTime = 10 * time.Second
)

// newLimiter returns a limiter for at most ceiling checks in flight that take at most timeout.
func newLimiter(ceiling int, timeout time.Duration) *limiter {
	return &limiter{pacer: newPacer(ceiling, timeout), sources: make(map[netip.Addr]*source)}
}

func (l *limiter) stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Stats{Concurrency: l.pacer.limit, InFlight: l.inFlight, Waiting: l.waiting}
}

// wait returns when a check of the address may be sent, or an error if it must not be. After a turn, done must be
// called.
func (l *limiter) wait(ctx context.Context, address netip.Addr) (*turn, error) {
	t, err := l.join(address)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(maxTurnTime)
	defer timer.Stop()
	select {
	case <-t.ready:
	case <-ctx.Done():
		l.leave(t, ctx.Err())
	case <-timer.C:
		l.leave(t, errCrowded)
	}
	<-t.ready
	if t.err != nil {
		return nil, t.err
	}
	return t, nil
}

// join queues a check.
func (l *limiter) join(address netip.Addr) (*turn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sources[address]
	if s == nil {
		s = &source{address: address, trust: trustNew}
	}
	if !l.admits(s) {
		return nil, errCrowded
	}
	l.sources[address] = s
	t := &turn{source: s, ready: make(chan struct{})}
	t.waiting = s.queue.PushBack(t)
	l.waiting++
	if s.inFlight == 0 && s.idle == nil {
		s.idle = l.idle.PushBack(s)
	}
	l.send()
	return t, nil
}

// admits reports whether a further check of a source can expect its turn in time.
func (l *limiter) admits(s *source) bool {
	if l.waiting >= maxWaiting {
		return false
	}
	turns := l.expected()
	now := l.inFlight < l.pacer.limit && l.next() == nil && s.inFlight < l.share(s) // those that wait may not be sent
	if l.waiting < turns || now {
		return true
	}
	// A source with a short queue does not wait for the long queues of others.
	sources := l.idle.Len() + 1
	for _, other := range l.active {
		if other != s && other.queue.Len() > 0 {
			sources++
		}
	}
	return (s.queue.Len()+1)*sources <= turns
}

// expected returns how many turns there are within turnTime, at the present rate.
func (l *limiter) expected() int {
	if l.pacer.rate == 0 {
		return maxWaiting
	}
	return max(1, int(l.pacer.rate*turnTime.Seconds()))
}

// leave ends the wait of a check that has not got its turn.
func (l *limiter) leave(t *turn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.waiting != nil {
		l.drop(t, err)
	}
}

func (l *limiter) drop(t *turn, err error) {
	l.dequeue(t)
	t.err = err
	close(t.ready)
	l.tidy(t.source)
}

func (l *limiter) dequeue(t *turn) {
	t.source.queue.Remove(t.waiting)
	t.waiting = nil
	l.waiting--
}

// tidy updates the lists that a source is in.
func (l *limiter) tidy(s *source) {
	switch wants := s.inFlight == 0 && s.queue.Len() > 0; {
	case wants && s.idle == nil:
		s.idle = l.idle.PushBack(s)
	case !wants && s.idle != nil:
		l.idle.Remove(s.idle)
		s.idle = nil
	}
	if s.inFlight == 0 && s.queue.Len() == 0 {
		delete(l.sources, s.address)
	}
}

// send gives turns as long as the limit allows.
func (l *limiter) send() {
	for s := l.next(); s != nil; s = l.next() {
		t := s.queue.Front().Value.(*turn)
		l.dequeue(t)
		l.inFlight++
		if s.inFlight++; s.inFlight == 1 {
			l.active = append(l.active, s)
		}
		l.turns++
		s.lastTurn = l.turns
		l.tidy(s)
		t.sent = l.pacer.send(l.inFlight, time.Now())
		close(t.ready)
	}
}

// next returns the source whose turn it is: one without a check in flight, or that with the fewest. It returns nil
// if the limit is reached or if no check may be sent.
func (l *limiter) next() *source {
	first := l.idle.Front()
	limit := l.pacer.limit
	if len(l.active) == 1 && (limit > 1 || l.active[0].trust == trustSlow) {
		limit = min(limit+1, l.pacer.ceiling) // all checks in flight are of one address: it must not hold up the others
	}
	if l.inFlight >= limit || first == nil && l.inFlight >= l.pacer.limit {
		return nil
	}
	if first != nil {
		return first.Value.(*source)
	}
	var best *source
	for _, s := range l.active {
		if s.queue.Len() == 0 || s.inFlight >= l.share(s) {
			continue
		}
		if best == nil || s.inFlight < best.inFlight || s.inFlight == best.inFlight && s.lastTurn < best.lastTurn {
			best = s
		}
	}
	return best
}

// share returns how many checks of a source may be in flight.
func (l *limiter) share(s *source) int {
	limit := l.pacer.limit
	switch {
	case s.trust == trustSlow:
		limit /= 4
	case s.trust == trustNew:
		limit /= 2
	case l.others(s):
		limit--
	}
	return max(1, limit)
}

// others reports whether other addresses than that of a source get their answers in normal time.
func (l *limiter) others(s *source) bool {
	for _, h := range l.healthy {
		if h.address != s.address && !h.at.IsZero() && time.Since(h.at) < healthyTime {
			return true
		}
	}
	return false
}

// outcome says how a check ended.
type outcome int

const (
	outcomeAnswer outcome = iota // the app accepted or rejected the user
	outcomeNone                  // it did not, or not in time
	outcomeEnded                 // the hub ended the check
)

// done ends a check that was in flight.
func (l *limiter) done(t *turn, how outcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s, now := t.source, time.Now()
	l.inFlight--
	if s.inFlight--; s.inFlight == 0 {
		l.active = slices.DeleteFunc(l.active, func(other *source) bool { return other == s })
	}
	if how != outcomeEnded {
		took := l.pacer.timeout
		if how == outcomeAnswer {
			took = now.Sub(t.sent.at)
		}
		l.judge(s, took, now)
		if l.pacer.observe(t.sent, s.address, took, s.trust == trustSlow && l.others(s), now) {
			l.shed()
		}
	}
	l.tidy(s)
	l.send()
}

// judge compares a source with the others.
func (l *limiter) judge(s *source, took time.Duration, now time.Time) {
	if took >= l.pacer.slow() {
		s.trust = trustSlow
		return
	}
	s.trust = min(s.trust+1, trustFast)
	if now.Sub(l.healthy[0].at) > healthyTime {
		l.pacer.restart() // what is known of the app is old, or of one slow address
	}
	if l.healthy[0].address != s.address {
		l.healthy[1] = l.healthy[0]
	}
	l.healthy[0] = answered{s.address, now}
}

// shed rejects the waiting checks that the app is not expected to answer in time any more: those of the longest
// queues, the newest first.
func (l *limiter) shed() {
	turns := l.expected()
	turns += turns / 8 // the expectation varies
	if l.waiting <= turns {
		return
	}
	fits := func(length int) bool {
		sum := 0
		for _, s := range l.sources {
			sum += min(s.queue.Len(), length)
		}
		return sum <= turns
	}
	keep := 0
	for step := maxWaiting; step > 0; step /= 2 {
		if fits(keep + step) {
			keep += step
		}
	}
	// One round further, as far as it goes, in the order of their turns.
	extra := turns
	queued := slices.Clone(l.active)
	for _, s := range l.sources {
		extra -= min(s.queue.Len(), keep)
	}
	for e := l.idle.Front(); e != nil; e = e.Next() {
		queued = append(queued, e.Value.(*source))
	}
	for _, s := range queued {
		length := keep
		if s.queue.Len() > keep && extra > 0 {
			length, extra = keep+1, extra-1
		}
		for s.queue.Len() > length {
			l.drop(s.queue.Back().Value.(*turn), errCrowded)
		}
	}
}
