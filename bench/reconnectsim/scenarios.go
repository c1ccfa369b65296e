package main

import "time"

// scenarios are what can happen to a fleet, in the order of the report.
var scenarios = []struct {
	name, title string
	happen      func(*sim)
}{
	{"deploy", "rolling deploy", (*sim).deploy},
	{"kill", "kill -9", (*sim).kill},
	{"outage", "Redis outage", (*sim).outage},
	{"balancer", "balancer restart", (*sim).cut},
}

// deploy restarts one hub after the other, as docs/reverse-proxies.md says: the next when
// the balancer has this one up again.
func (s *sim) deploy() { s.restart(0) }

func (s *sim) restart(i int) {
	if i == len(s.hubs) {
		s.took = s.now
		return
	}
	h := s.hubs[i]
	h.draining = true // SIGTERM
	s.notice(h, false, s.checkDown)
	s.after(s.drainDelay, func() {
		open := h.open()
		for n, p := range open {
			s.after(s.drain*time.Duration(n+1)/time.Duration(len(open)), func() {
				p.retry = s.jitter(s.params.retry) // the bye's
				p.end()
			})
		}
		over := s.drain
		if len(open) == 0 {
			over = 0
		}
		s.after(over, func() {
			h.leave()
			s.start(h, func() { s.restart(i + 1) })
		})
	})
}

// kill ends hubs at once and without a word; they are started again.
func (s *sim) kill() {
	n := s.killed
	if n == 0 {
		n = len(s.hubs)
	}
	for _, h := range s.hubs[:n] {
		h.leave()
		s.notice(h, false, s.checkDown)
		s.start(h, func() {})
	}
}

// start brings a hub back, and calls then when the balancer has noticed.
func (s *sim) start(h *hub, then func()) {
	s.after(s.restartTime, func() {
		h.up = true
		s.notice(h, true, s.checkUp)
		s.after(s.checkUp, then)
	})
}

// notice is what the balancer's health checks find, in time. Without checks it
// believes in every hub for ever.
func (s *sim) notice(h *hub, seen bool, in time.Duration) {
	if s.checkDown > 0 {
		s.after(in, func() { h.seen = seen })
	}
}

// outage takes Redis away from all hubs. Streams stay; each hub tells its own of the
// gap, from the moment of its new subscription on. Times count from Redis's return.
func (s *sim) outage() {
	for _, h := range s.hubs {
		subscribed := time.Duration(0)
		for pause := s.backoffMin; subscribed < s.redisAway; pause = min(2*pause, s.backoffMax) {
			subscribed += pause - time.Duration(s.rng.Int64N(int64(pause)/2+1))
		}
		missed := subscribed.Seconds() * s.rate * float64(h.clients)
		if s.feed == "stream" { // it goes on where it stopped
			s.replayed += missed
			continue
		}
		s.lost += missed
		open := h.open()
		over := min(s.gapSpread, time.Duration(float64(len(open))/s.gapRate*float64(time.Second)))
		for n, p := range open {
			told := over * time.Duration(n+1) / time.Duration(len(open))
			told = (told + spreadStep - 1).Truncate(spreadStep)
			if s.rate > 0 { // its next message brings it
				told = min(told, time.Duration(s.rng.ExpFloat64()/s.rate*float64(time.Second)))
			}
			s.after(subscribed-s.redisAway+told, func() {
				p.refetches.add(p.now)
				p.back = append(p.back, p.now)
			})
		}
	}
}

// cut ends all connections at once, as a balancer does that is restarted.
func (s *sim) cut() {
	s.proxyUp = s.proxyAway
	for _, p := range s.pages {
		p.end()
	}
}
