package load

import (
	"context"
	"math"
	"time"
)

const (
	// maxBatch is how many messages are published before Flush. It limits the bursts of a publisher that has fallen behind.
	maxBatch = 256
	// minSleep is the shortest sleep, because a timer costs about as much as ten messages.
	minSleep = 100 * time.Microsecond
	// maxMessages exceeds what fits into memory, and fits into an int on all platforms.
	maxMessages = 1 << 30
	// pollInterval is how often a waiting loop checks whether to continue.
	pollInterval = 100 * time.Millisecond
)

// loop runs a phase in which messages are published.
func (r *run) loop(ctx context.Context, l *Loop) {
	s, t := r.sender, r.tally
	first, expected, noSubscriber := len(s.targets), s.expected, s.noSubscriber.Load()
	p := &phase{first: first, latency: newHistogram()}
	t.lock()
	t.phases = append(t.phases, p)
	t.unlock()
	many := r.cfg.Broadcast || r.cfg.Users < r.cfg.Streams
	messages, limit := r.cfg.Messages, r.cfg.Duration
	if l.Kind == "open" {
		// All messages that are due within the duration, even if the publisher is late.
		due := int(min(math.Ceil(r.cfg.Rate*limit.Seconds()), maxMessages))
		if messages == 0 || due < messages {
			messages = due
		}
		limit += r.cfg.Patience
	}
	m, pings := r.mark(), r.pings()
	r.phase(l.Kind+" loop", r.cfg.Duration.Milliseconds())
	begin := t.clock()

	var err error
	for err == nil && ctx.Err() == nil && s.err() == nil {
		elapsed := time.Duration(t.clock() - begin)
		sent := len(s.targets) - first
		if elapsed >= limit || messages > 0 && sent >= messages {
			break
		}
		if t.open.Load() == 0 {
			r.note("the %s loop stopped early because all streams have ended", l.Kind)
			break
		}
		n, wait := 0, time.Duration(0)
		due := func(int) int64 { return t.clock() }
		if l.Kind == "open" {
			n, wait = r.dueNow(elapsed, sent)
			due = func(i int) int64 { return begin + int64(r.dueAt(sent+i)) }
			if n > 0 {
				l.LagMax = max(l.LagMax, milliseconds(elapsed-r.dueAt(sent)))
			}
		} else {
			n, wait = r.available(), pollInterval
		}
		if messages > 0 {
			n = min(n, messages-sent)
		}
		if n = min(n, maxBatch); n == 0 {
			if l.Kind == "open" {
				sleep(ctx, min(wait, pollInterval))
			} else {
				r.waitFor(ctx, wait)
			}
			continue
		}
		if many {
			p.grow(t, sent+n)
		}
		err = s.send(n, due)
	}
	if err != nil {
		s.fail(err)
	}
	l.Sending = time.Duration(t.clock() - begin).Seconds()
	l.Seconds = time.Duration(r.finish() - begin).Seconds()
	s.abandoned = s.expected - t.accounted.Load()
	l.Cost, l.Pings = r.since(m), r.pings()-pings
	l.Messages = int64(len(s.targets) - first)
	l.Unconfirmed = int64(len(s.targets)) - s.confirmed.Load()
	l.NoSubscriber = s.noSubscriber.Load() - noSubscriber
	l.Expected = s.expected - expected
	t.lock()
	l.Delivered, l.Latency, l.LastStream = p.delivered, newLatency(p.latency), p.lastStream()
	t.unlock()
	l.PerSecond = float64(l.Delivered) / max(l.Seconds, 1e-9)
	l.ClientPer1 = per(l.Cost.ClientCPU*1e6, l.Delivered)
	if l.Cost.Hub != nil {
		l.HubPer1M = per(l.Cost.Hub.CPU*1e6, l.Delivered)
	}
	r.report.Loops = append(r.report.Loops, l)
}

// dueAt returns when the nth message of an open loop is due, relative to the start of the loop.
func (r *run) dueAt(n int) time.Duration {
	return timeFor(n, r.cfg.Rate)
}

// timeFor returns the time for n events at a rate. It is limited to the longest Duration: the conversion of a larger value
// would be undefined.
func timeFor(n int, perSecond float64) time.Duration {
	if ns := float64(n) / perSecond * float64(time.Second); ns < math.MaxInt64 {
		return time.Duration(ns)
	}
	return math.MaxInt64
}

// dueNow returns how many messages of an open loop are due, and the time until the next one is due.
func (r *run) dueNow(elapsed time.Duration, sent int) (n int, wait time.Duration) {
	due := int(min(math.Floor(elapsed.Seconds()*r.cfg.Rate), maxMessages)) + 1 - sent
	if due > 0 {
		return due, 0
	}
	return 0, max(r.dueAt(sent)-elapsed, minSleep)
}

// available returns how many messages a closed loop can publish. If it is 0, available sets the target of the tally so
// that waitFor returns when a batch of messages is available.
func (r *run) available() int {
	s, t := r.sender, r.tally
	perMessage := max(t.open.Load()/int64(len(s.names)), 1) // streams
	t.target.Store(math.MaxInt64)
	limit := int64(r.cfg.Outstanding) * perMessage
	expected := s.expected - s.abandoned
	outstanding := expected - t.accounted.Load()
	if outstanding < limit {
		return int((limit - outstanding + perMessage - 1) / perMessage)
	}
	t.target.Store(expected - limit + limit/8 + 1)
	return 0
}

// waitFor waits until the target of the tally is reached, for at most d.
func (r *run) waitFor(ctx context.Context, d time.Duration) {
	t := r.tally
	if t.accounted.Load() >= t.target.Load() {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.reached:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// finish waits until all deliveries are accounted for, or until no more arrive within the patience. It returns when the
// last one arrived.
func (r *run) finish() (last int64) {
	s, t := r.sender, r.tally
	last = t.clock()
	before := t.accounted.Load()
	for waiting := t.clock(); ; {
		now := t.accounted.Load()
		if now != before {
			before, waiting, last = now, t.clock(), t.clock()
		}
		confirmed := s.confirmed.Load() >= int64(len(s.targets)) || s.err() != nil
		if now >= s.expected-s.abandoned && confirmed || t.clock()-waiting >= int64(r.cfg.Patience) {
			return last
		}
		// Without Redis, messages that it has not received will not arrive.
		if s.err() != nil && t.clock()-waiting >= int64(r.cfg.Patience)/4 {
			return last
		}
		time.Sleep(time.Millisecond)
	}
}

// grow extends p.last to at least n messages.
func (p *phase) grow(t *tally, n int) {
	if n <= len(p.last) { // only this goroutine changes the length
		return
	}
	last := make([]int64, max(2*n, 1024))
	t.lock()
	copy(last, p.last)
	p.last = last
	t.unlock()
}

func (p *phase) lastStream() *Latency {
	if p.last == nil {
		return nil
	}
	h := newHistogram()
	for _, latency := range p.last {
		if latency > 0 {
			record(h, latency)
		}
	}
	l := newLatency(h)
	return &l
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
