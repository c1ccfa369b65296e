package main

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// sim has the clock, the random numbers and the counters.
type sim struct {
	params
	now   time.Duration
	rng   *rand.Rand
	queue events
	added uint64

	hubs  []*hub
	pages []*page

	proxyUp      time.Duration // connections are refused until then
	disconnected int           // pages without a stream
	lastMarker   time.Duration // published by a hub that drains, not one of its regular markers
	result
}

// An event is a function to call at a time. Events with the same time keep their order.
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

// newSim returns an idle fleet: all pages are connected, and the caches of session checks are empty.
func newSim(p params) *sim {
	s := &sim{params: p, rng: rand.New(rand.NewPCG(p.seed, 0))}
	for range p.hubs {
		h := &hub{sim: s, up: true, seen: true, cached: map[int]time.Duration{}, pending: map[int][]func(bool){}}
		h.since = -time.Hour - time.Duration(s.rng.Int64N(int64(markerInterval)))
		s.hubs = append(s.hubs, h)
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

// run processes events until the queue is empty or the limit is reached.
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

// jitter returns d ± the part in -jitter.
func (s *sim) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 + s.jitterPart*(2*s.rng.Float64()-1)))
}

// A page simulates one EventSource.
type page struct {
	*sim
	user  int
	hub   *hub // hub of its stream, or of its last one
	boot  int  // number of the process that its id is from
	open  bool
	id    time.Duration // when the marker of its last id was published
	retry time.Duration // the last retry that it received
	ended time.Duration // when its last stream ended
}

// disconnect ends the stream. The page reconnects after its retry, with its last id, which it received at a time.
func (p *page) disconnect(received time.Duration) {
	p.open = false
	p.id = p.newestMarker(received)
	p.ended = p.now
	p.hub.clients--
	p.hub.load--
	p.disconnected++
	p.maxDisconnected = max(p.maxDisconnected, p.disconnected)
	p.after(p.retry, p.connect)
}

// lastPing returns when a page received the last id, if its stream ends without bye.
func (s *sim) lastPing() time.Duration {
	return s.now - time.Duration(s.rng.Int64N(int64(s.pingInterval)))
}

// newestMarker returns when the newest marker was published, at a time.
func (s *sim) newestMarker(at time.Duration) time.Duration {
	newest := time.Duration(-1 << 63)
	if s.lastMarker <= at {
		newest = s.lastMarker
	}
	for _, h := range s.hubs {
		if h.up && h.since <= at {
			newest = max(newest, at-(at-h.since)%markerInterval)
		}
	}
	return newest
}

func (p *page) connect() { p.connectAgain(time.Second) }

// connectAgain requests a stream from the load balancer. If the SYN is dropped, it is retransmitted after syn, which doubles
// each time.
func (p *page) connectAgain(syn time.Duration) {
	if p.now < p.proxyUp { // refused
		p.after(p.retry, p.connect)
		return
	}
	h := p.choose(p)
	if h == nil {
		p.refused++
		if p.fallbackRetry > 0 {
			p.retry = p.fallbackRetry
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

// choose returns the hub that the load balancer selects. If a hub refuses the connection, the load balancer tries another
// one, so that a hub whose failure it has not detected yet does not matter.
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

// rejected simulates a stream that ends with the event busy.
func (p *page) rejected(h *hub) {
	h.load--
	p.busy++
	p.retry = p.jitter(busyFactor * p.params.retry)
	p.after(p.retry, p.connect)
}

// opened simulates a stream that opens, with the missed messages or a gap.
func (p *page) opened(h *hub) {
	absent := p.now - p.ended
	p.recovered = append(p.recovered, absent)
	p.disconnected--
	missed := absent.Seconds() * p.rate
	same := p.hub == h && p.boot == h.boot && absent < p.historyAge
	if p.feed == "stream" || same || p.markers && p.id >= h.since && absent < p.reach {
		p.replayed += missed
	} else {
		p.lost += missed
		p.refetches.add(p.now)
	}
	p.hub, p.boot, p.open = h, h.boot, true
	p.retry = p.jitter(p.params.retry)
	h.clients++
}
