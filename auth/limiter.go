package auth

import (
	"container/list"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// A limiter decides when a call is sent to the app. Its pacer adapts the number of calls in flight to the capacity of
// the app. The limiter queues the others, and sends them in an order that is fair to all client addresses. It is safe
// for concurrent use and does not start goroutines.
type limiter struct {
	mu        sync.Mutex // guards everything below
	pacer     pacer
	inFlight  int
	waiting   int
	sources   map[netip.Addr]*source // sources with a call in flight or queued
	idle      list.List              // of *source: sources with queued calls only; the next one first
	active    []*source              // sources with a call in flight
	sentCount uint64                 // number of calls sent so far
	healthy   [2]response            // the last two addresses with a response in normal time, the newest first
}

// A source is a client address.
type source struct {
	address  netip.Addr
	inFlight int
	queue    list.List     // of *slot, the oldest first
	idle     *list.Element // in limiter.idle
	trust    trust
	lastSent uint64 // orders the sources with calls in flight
}

// trust determines the maximum share of one source in all calls in flight.
type trust int

const (
	trustSlow trust = iota // a quarter: its last call took much longer than those of other sources
	trustNew               // half
	trustFast              // all, or all but one if other sources receive responses in normal time
)

// A slot is a call that is queued or in flight.
type slot struct {
	source  *source
	waiting *list.Element // in source.queue; nil if it is not queued
	ready   chan struct{} // closed when the wait is over
	err     error         // set before ready is closed: why the call must not be sent
	sent    sending
}

// A response records when an address received a response of the app.
type response struct {
	address netip.Addr
	at      time.Time
}

const (
	// expectedWait is the maximum expected wait of a call. A call whose expected wait is longer is rejected.
	expectedWait = 10 * time.Second

	// maxWait is the maximum wait. It applies if the app becomes slower while calls are queued.
	maxWait = 20 * time.Second

	// maxWaiting is the maximum number of queued calls.
	maxWaiting = 32 << 10

	// healthyTime is how long a response in normal time counts as evidence that the app works.
	healthyTime = 10 * time.Second
)

// newLimiter returns a limiter for at most ceiling calls in flight that take at most timeout.
func newLimiter(ceiling int, timeout time.Duration) *limiter {
	return &limiter{pacer: newPacer(ceiling, timeout), sources: make(map[netip.Addr]*source)}
}

func (l *limiter) stats() ForwardStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ForwardStats{Concurrency: l.pacer.limit, InFlight: l.inFlight, Waiting: l.waiting}
}

// wait blocks until a call of the address may be sent, and returns its slot, for which the caller must call done. It
// returns an error if the call must not be sent.
func (l *limiter) wait(ctx context.Context, address netip.Addr) (*slot, error) {
	t, err := l.join(address)
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-t.ready:
	case <-ctx.Done():
		l.leave(t, ctx.Err())
	case <-timer.C:
		l.leave(t, errQueueFull)
	}
	<-t.ready
	if t.err != nil {
		return nil, t.err
	}
	return t, nil
}

// join queues a call.
func (l *limiter) join(address netip.Addr) (*slot, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.sources[address]
	if s == nil {
		s = &source{address: address, trust: trustNew}
	}
	if !l.admits(s) {
		return nil, errQueueFull
	}
	l.sources[address] = s
	t := &slot{source: s, ready: make(chan struct{})}
	t.waiting = s.queue.PushBack(t)
	l.waiting++
	if s.inFlight == 0 && s.idle == nil {
		s.idle = l.idle.PushBack(s)
	}
	l.send()
	return t, nil
}

// admits reports whether another call of a source can be expected to be sent in time.
func (l *limiter) admits(s *source) bool {
	if l.waiting >= maxWaiting {
		return false
	}
	capacity := l.expected()
	now := l.inFlight < l.pacer.limit && l.next() == nil && s.inFlight < l.share(s) // no queued call may be sent, but this one may
	if l.waiting < capacity || now {
		return true
	}
	// A source with a short queue does not wait for the long queues of others.
	sources := l.idle.Len() + 1
	for _, other := range l.active {
		if other != s && other.queue.Len() > 0 {
			sources++
		}
	}
	return (s.queue.Len()+1)*sources <= capacity
}

// expected returns how many calls can be sent within expectedWait at the current rate.
func (l *limiter) expected() int {
	if l.pacer.rate == 0 {
		return maxWaiting
	}
	return max(1, int(l.pacer.rate*expectedWait.Seconds()))
}

// leave removes a call from the queue, if it is still queued.
func (l *limiter) leave(t *slot, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.waiting != nil {
		l.drop(t, err)
	}
}

func (l *limiter) drop(t *slot, err error) {
	l.dequeue(t)
	t.err = err
	close(t.ready)
	l.updateLists(t.source)
}

func (l *limiter) dequeue(t *slot) {
	t.source.queue.Remove(t.waiting)
	t.waiting = nil
	l.waiting--
}

// updateLists updates the lists that a source is in.
func (l *limiter) updateLists(s *source) {
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

// send lets queued calls be sent as long as the limit allows.
func (l *limiter) send() {
	for s := l.next(); s != nil; s = l.next() {
		t := s.queue.Front().Value.(*slot)
		l.dequeue(t)
		l.inFlight++
		if s.inFlight++; s.inFlight == 1 {
			l.active = append(l.active, s)
		}
		l.sentCount++
		s.lastSent = l.sentCount
		l.updateLists(s)
		t.sent = l.pacer.send(l.inFlight, time.Now())
		close(t.ready)
	}
}

// next returns the source of the next call: a source without a call in flight, otherwise the one with the fewest. It
// returns nil if the limit is reached or no call may be sent.
func (l *limiter) next() *source {
	first := l.idle.Front()
	limit := l.pacer.limit
	if len(l.active) == 1 && (limit > 1 || l.active[0].trust == trustSlow) {
		limit = min(limit+1, l.pacer.ceiling) // all calls in flight are of one address, which must not delay the others
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
		if best == nil || s.inFlight < best.inFlight || s.inFlight == best.inFlight && s.lastSent < best.lastSent {
			best = s
		}
	}
	return best
}

// share returns the maximum number of calls of a source in flight.
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

// others reports whether other addresses than that of s receive their responses in normal time.
func (l *limiter) others(s *source) bool {
	for _, h := range l.healthy {
		if h.address != s.address && !h.at.IsZero() && time.Since(h.at) < healthyTime {
			return true
		}
	}
	return false
}

// outcome is the way in which a call ended.
type outcome int

const (
	outcomeAnswer outcome = iota // the app accepted or rejected the user
	outcomeNone                  // the app failed to respond in time, or its response was an error
	outcomeEnded                 // the hub canceled the call
)

// done ends a call that was in flight.
func (l *limiter) done(t *slot, how outcome) {
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
		l.classify(s, took, now)
		if l.pacer.observe(t.sent, s.address, took, s.trust == trustSlow && l.others(s), now) {
			l.shed()
		}
	}
	l.updateLists(s)
	l.send()
}

// classify sets the trust of a source by the duration of its last call.
func (l *limiter) classify(s *source, took time.Duration, now time.Time) {
	if took >= l.pacer.slow() {
		s.trust = trustSlow
		return
	}
	s.trust = min(s.trust+1, trustFast)
	if now.Sub(l.healthy[0].at) > healthyTime {
		l.pacer.restart() // the measurements are outdated, or from one slow address only
	}
	if l.healthy[0].address != s.address {
		l.healthy[1] = l.healthy[0]
	}
	l.healthy[0] = response{s.address, now}
}

// shed rejects the queued calls to which the app can no longer be expected to respond in time: those of the longest
// queues, the newest first.
func (l *limiter) shed() {
	capacity := l.expected()
	capacity += capacity / 8 // the expectation varies
	if l.waiting <= capacity {
		return
	}
	fits := func(length int) bool {
		sum := 0
		for _, s := range l.sources {
			sum += min(s.queue.Len(), length)
		}
		return sum <= capacity
	}
	keep := 0
	for step := maxWaiting; step > 0; step /= 2 {
		if fits(keep + step) {
			keep += step
		}
	}
	// Let some sources keep one more call, in the order in which they would be sent, until capacity is reached.
	extra := capacity
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
			l.drop(s.queue.Back().Value.(*slot), errQueueFull)
		}
	}
}
