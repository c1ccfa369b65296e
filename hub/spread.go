package hub

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// gapRate is how many idle clients per second receive a gap, as long as this takes less than Config.GapSpread. Each
// of them is a page that fetches its state again from the app.
const gapRate = 100

// A gapSpread gradually wakes the clients that have a gap queued and receive nothing else. All fields are guarded by
// Hub.mu.
type gapSpread struct {
	hub    *Hub
	max    time.Duration
	nudges *nudges // the newest
	active bool    // nudges is not done
	again  bool    // another gap was queued since nudges began
	closed bool

	waited *Frame // a gap with the position of the moment at which it was taken; nil: none so far
}

// spread nudges clients that have a gap queued, and owns the list. If it is still active for an earlier gap, it visits all
// clients afterwards: frequent gaps must not postpone each other.
func (g *gapSpread) spread(clients []*Client) {
	if g.closed || len(clients) == 0 {
		return
	}
	if g.again = g.active; g.again {
		return
	}
	g.active = true
	over := min(g.max, time.Duration(len(clients))*time.Second/gapRate)
	g.nudges = startNudges(clients, over, g.done)
}

func (g *gapSpread) done() {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	g.active = false
	if g.again {
		g.spread(slices.Clone(g.hub.clients))
	}
}

// frame returns a gap that waited in a queue and is the last frame of it, with the current position as its id (R17). With its
// own id, which may count from no marker at all, a client that moves soon afterwards could not resume.
func (g *gapSpread) frame(gap *Frame, position ID) *Frame {
	if gap.ID == position {
		return gap
	}
	if f := g.waited; f == nil || f.ID != position || f.Gap != gap.Gap {
		g.waited = g.hub.encode(&Entry{ID: position, Gap: gap.Gap, marker: g.hub.seq.markerOf(position)}, false)
		g.waited.spread = true
	}
	return g.waited
}

func (g *gapSpread) close() {
	g.closed = true
	if g.nudges != nil {
		g.nudges.stop()
	}
}

// spreadStep is the time between two steps of a spread. Shorter steps wake the process more often for the same work;
// longer ones cause bursts of requests to the app.
const spreadStep = 10 * time.Millisecond

// due returns how many of n actions must be done when passed of the time over has elapsed. It is computed from the
// start, so that rounding errors do not add up: otherwise a few actions over a long time would all be done at the
// end.
func due(n int, passed, over time.Duration) int {
	if passed >= over {
		return n
	}
	return int(float64(n) * float64(passed) / float64(over))
}

// nudges wake clients in random order, evenly over a time, with one timer.
type nudges struct {
	done func() // called when all were nudged, without a lock

	mu      sync.Mutex
	timer   *time.Timer // nil once stopped or done
	clients []*Client
	nudged  int // number of clients that were nudged, the first ones
	start   time.Time
	over    time.Duration
}

// startNudges starts to nudge clients. It owns the slice, which must not be empty.
func startNudges(clients []*Client, over time.Duration, done func()) *nudges {
	n := &nudges{clients: clients, start: time.Now(), over: over, done: done}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer = time.AfterFunc(min(spreadStep, over), n.step)
	return n
}

func (n *nudges) step() {
	if n.nudge() {
		n.done()
	}
}

// nudge nudges the clients that are due, and reports whether all have been nudged.
func (n *nudges) nudge() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer == nil {
		return false
	}
	upTo := due(len(n.clients), time.Since(n.start), n.over)
	for i := n.nudged; i < upTo; i++ { // shuffle incrementally: shuffling all at once would take long
		j := i + rand.IntN(len(n.clients)-i)
		n.clients[i], n.clients[j] = n.clients[j], n.clients[i]
		n.clients[i].wakeForGap()
	}
	if n.nudged = upTo; upTo == len(n.clients) {
		n.clients, n.timer = nil, nil
		return true
	}
	n.timer.Reset(spreadStep)
	return false
}

func (n *nudges) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer != nil {
		n.timer.Stop()
		n.clients, n.timer = nil, nil
	}
}
