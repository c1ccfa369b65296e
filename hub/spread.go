package hub

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// gapRate is how many idle clients per second are sent a gap, until Config.GapSpread is
// reached: each of them is a page that fetches its state again from the app.
const gapRate = 100

// A gapSpread wakes the clients that have a gap queued and receive nothing else, over a time.
// All fields are guarded by Hub.mu.
type gapSpread struct {
	hub    *Hub
	max    time.Duration
	nudges *nudges // the newest
	active bool    // it is not done
	again  bool    // another gap has come since it began
	closed bool
}

// spread nudges all clients. While it does so for an earlier gap, it does so afterwards:
// gaps that come one after the other must not postpone each other.
func (g *gapSpread) spread(clients []*Client) {
	if g.again = g.active; g.again || g.closed || len(clients) == 0 {
		return
	}
	g.active = true
	over := min(g.max, time.Duration(len(clients))*time.Second/gapRate)
	g.nudges = startNudges(slices.Clone(clients), over, g.done)
}

func (g *gapSpread) done() {
	g.hub.mu.Lock()
	defer g.hub.mu.Unlock()
	g.active = false
	if g.again {
		g.spread(g.hub.clients)
	}
}

func (g *gapSpread) close() {
	g.closed = true
	if g.nudges != nil {
		g.nudges.stop()
	}
}

// spreadStep is how often a part of a spread is done. Finer steps wake the
// process more often for the same work; coarser ones come in bursts that the app
// behind the pages notices.
const spreadStep = 10 * time.Millisecond

// due is how many of n things must have been done after a part of a time.
// It counts from the start: otherwise what one step rounds off would be lost, and a few
// things over a long time would all be done at its end.
func due(n int, passed, over time.Duration) int {
	if passed >= over {
		return n
	}
	return int(float64(n) * float64(passed) / float64(over))
}

// nudges wake clients in random order, one after the other over a time, on one timer.
type nudges struct {
	done func() // called when all were nudged, with no lock held

	mu      sync.Mutex
	timer   *time.Timer // nil once stopped or done
	clients []*Client
	nudged  int // how many of clients
	start   time.Time
	over    time.Duration
}

// startNudges owns clients from now on. There must be one.
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

// nudge nudges those whose time has come, and reports whether they were the last.
func (n *nudges) nudge() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.timer == nil {
		return false
	}
	upTo := due(len(n.clients), time.Since(n.start), n.over)
	for i := n.nudged; i < upTo; i++ { // shuffled bit by bit: all at once would take long
		j := i + rand.IntN(len(n.clients)-i)
		n.clients[i], n.clients[j] = n.clients[j], n.clients[i]
		n.clients[i].Nudge()
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
