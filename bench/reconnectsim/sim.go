package main

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// sim is the clock, chance, and all that is counted.
type sim struct {
	params
	now   time.Duration
	rng   *rand.Rand
	queue events
	added uint64

	hubs  []*hub
	pages []*page

	proxyUp time.Duration // until then connections are refused
	away    int           // pages without a stream
	result
}

// event is something to do at a time. Those of the same time keep their order.
type event struct {
	at    time.Duration
	added uint64
	do    func()
}

type events []event

func (q events) Len() int      { return len(q) }
func (q events) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q events) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].added < q[j].added
}
func (q *events) Push(e any) { *q = append(*q, e.(event)) }
func (q *events) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}

func (s *sim) after(d time.Duration, do func()) {
	s.added++
	heap.Push(&s.queue, event{s.now + d, s.added, do})
}

// newSim is a fleet at rest: all pages are connected, log-ins are no longer cached.
func newSim(p params) *sim {
	s := &sim{params: p, rng: rand.New(rand.NewPCG(p.seed, 0))}
	for range p.hubs {
		s.hubs = append(s.hubs, &hub{sim: s, up: true, seen: true, cached: map[int]time.Duration{}, asking: map[int][]func(bool){}})
	}
	n := p.hubs * p.perHub
	for i := range n {
		pg := &page{sim: s, user: i % max(n/p.tabs, 1), hub: s.hubs[i%p.hubs], open: true}
		pg.retry = s.jitter(p.retry)
		pg.hub.clients++
		pg.hub.load++
		s.pages = append(s.pages, pg)
	}
	return s
}

// run goes on until nothing is left to happen, or the limit is reached.
func (s *sim) run() {
	for len(s.queue) > 0 {
		e := heap.Pop(&s.queue).(event)
		if e.at > s.limit {
			return
		}
		s.now = e.at
		e.do()
	}
}

// jitter is d ± the part that -jitter says.
func (s *sim) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + s.jitterPart*(2*s.rng.Float64()-1)))
}

// A page is one EventSource.
type page struct {
	*sim
	user  int
	hub   *hub // of its stream, or of its last one; nil before the first
	boot  int  // of the process that its id is from
	open  bool
	retry time.Duration // as it was told last
	ended time.Duration // when its last stream ended
}

// end ends the stream; the page comes back by itself.
func (p *page) end() {
	p.open = false
	p.ended = p.now
	p.hub.clients--
	p.hub.load--
	p.away++
	p.mostAway = max(p.mostAway, p.away)
	p.after(p.retry, p.connect)
}

func (p *page) connect() { p.connectAgain(time.Second) }

// connectAgain asks the balancer for a stream. A SYN that is dropped is sent again
// after a time that doubles.
func (p *page) connectAgain(syn time.Duration) {
	if p.now < p.proxyUp { // refused
		p.after(p.retry, p.connect)
		return
	}
	h := p.choose(p)
	if h == nil {
		p.turnedAway++
		if p.awayRetry > 0 {
			p.retry = p.awayRetry
		}
		p.after(p.retry, p.connect)
		return
	}
	if h.waiting >= p.backlog {
		p.dropped++
		p.after(syn, func() { p.connectAgain(2 * syn) })
		return
	}
	h.accept(p)
}

// choose is the balancer. It goes on to another hub when one refuses the connection,
// so that a dead hub that it still believes in does no harm.
func (s *sim) choose(p *page) *hub {
	if s.affinity && p.hub.seen && p.hub.up {
		return p.hub
	}
	var best *hub
	for i, first := 0, s.rng.IntN(len(s.hubs)); i < len(s.hubs); i++ {
		h := s.hubs[(first+i)%len(s.hubs)]
		if h.seen && h.up && (best == nil || h.load < best.load) {
			best = h
		}
	}
	return best
}

// notNow is a stream that says busy, and ends.
func (p *page) notNow(h *hub) {
	h.load--
	p.busy++
	p.retry = p.jitter(busyFactor * p.params.retry)
	p.after(p.retry, p.connect)
}

// opened is the 200, with what the page missed or the news that it cannot be told.
func (p *page) opened(h *hub) {
	absent := p.now - p.ended
	p.back = append(p.back, absent)
	p.away--
	missed := absent.Seconds() * p.rate
	if p.feed == "stream" || p.hub == h && p.boot == h.boot && absent < p.historyAge {
		p.replayed += missed
	} else {
		p.lost += missed
		p.refetches.add(p.now)
	}
	p.hub, p.boot, p.open = h, h.boot, true
	p.retry = p.jitter(p.params.retry)
	h.clients++
}
