package hub

import (
	"math/rand/v2"
	"sync"
	"time"
)

// spreadStep is how often a part of a spread is done. Finer steps wake the
// process more often for the same work; coarser ones come in lumps that the app
// behind the pages feels.
const spreadStep = 10 * time.Millisecond

// due is how many of n things must have been done when passed of over is gone.
// It counts from the start: what one step rounds off would else be lost, and a few
// things over a long time would all be done at its end.
func due(n int, passed, over time.Duration) int {
	if passed >= over {
		return n
	}
	return int(float64(n) * float64(passed) / float64(over))
}

// A spread nudges clients in random order, one after the other over a time, on one timer.
type spread struct {
	done func() // called when all were nudged, with no lock held

	mu      sync.Mutex
	timer   *time.Timer // nil once stopped or done
	clients []*Client
	nudged  int // how many of clients
	start   time.Time
	over    time.Duration
}

// spreadNudges owns clients from now on.
func spreadNudges(clients []*Client, over time.Duration, done func()) *spread {
	s := &spread{clients: clients, start: time.Now(), over: over, done: done}
	if len(clients) > 0 {
		s.mu.Lock()
		s.timer = time.AfterFunc(min(spreadStep, over), s.step)
		s.mu.Unlock()
	}
	return s
}

func (s *spread) step() {
	if s.nudge() {
		s.done()
	}
}

// nudge nudges those whose time has come, and reports whether they were the last.
func (s *spread) nudge() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		return false
	}
	n := due(len(s.clients), time.Since(s.start), s.over)
	for i := s.nudged; i < n; i++ { // shuffled bit by bit: all at once would take long
		j := i + rand.IntN(len(s.clients)-i)
		s.clients[i], s.clients[j] = s.clients[j], s.clients[i]
		s.clients[i].Nudge()
	}
	if s.nudged = n; n == len(s.clients) {
		s.clients, s.timer = nil, nil
		return true
	}
	s.timer.Reset(spreadStep)
	return false
}

func (s *spread) stop() {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.clients, s.timer = nil, nil
	}
}
