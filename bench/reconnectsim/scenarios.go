package main

import "time"

// scenarios are in the order of the report.
var scenarios = []struct {
	name, title string
	happen      func(*sim)
}{
	{"deploy", "rolling deploy", (*sim).deploy},
	{"kill", "kill -9", (*sim).kill},
	{"outage", "Redis outage", (*sim).outage},
	{"balancer", "load balancer restart", (*sim).cut},
}

// deploy restarts one hub after the other, as described in docs/reverse-proxies.md. The next one follows when the load
// balancer has detected that the previous one is up.
func (s *sim) deploy() { s.restart(0) }

func (s *sim) restart(i int) {
	if i == len(s.hubs) {
		s.took = s.now
		return
	}
	h := s.hubs[i]
	h.draining = true // SIGTERM
	s.lastMarker = s.now
	s.notice(h, false, s.checkDown)
	s.after(s.drainDelay, func() {
		open := h.open()
		for n, p := range open {
			s.after(s.drain*time.Duration(n+1)/time.Duration(len(open)), func() {
				p.retry = s.jitter(s.params.retry) // the retry of the bye event
				p.disconnect(s.now)
			})
		}
		over := s.drain
		if len(open) == 0 {
			over = 0
		}
		s.after(over, func() {
			h.exit()
			s.start(h, func() { s.restart(i + 1) })
		})
	})
}

// kill ends hubs immediately, without bye events, and restarts them.
func (s *sim) kill() {
	n := s.killed
	if n == 0 {
		n = len(s.hubs)
	}
	for _, h := range s.hubs[:n] {
		h.exit()
		s.notice(h, false, s.checkDown)
		s.start(h, func() {})
	}
}

// start restarts a hub, and calls then when the load balancer has detected it.
func (s *sim) start(h *hub, then func()) {
	s.after(s.restartPause+s.restartTime, func() {
		h.up, h.since = true, s.now
		s.notice(h, true, s.checkUp)
		s.after(s.checkUp, then)
	})
}

// notice changes the state of a hub at the load balancer after the delay of its health checks. Without health checks, all
// hubs count as ready.
func (s *sim) notice(h *hub, seen bool, in time.Duration) {
	if s.checkDown > 0 {
		s.after(in, func() { h.seen = seen })
	}
}

// outage simulates a Redis outage. Streams stay open. After its new subscription, each hub sends gaps to its streams. Times
// count from the end of the outage.
func (s *sim) outage() {
	for _, h := range s.hubs {
		subscribed := time.Duration(0)
		for pause := s.backoffMin; subscribed < s.redisDown; pause = min(2*pause, s.backoffMax) {
			subscribed += pause - time.Duration(s.rng.Int64N(int64(pause)/2+1))
		}
		missed := subscribed.Seconds() * s.rate * float64(h.clients)
		if s.feed == "stream" { // the stream feed continues where it stopped
			s.replayed += missed
			continue
		}
		s.lost += missed
		open := h.open()
		over := min(s.gapSpread, time.Duration(float64(len(open))/s.gapRate*float64(time.Second)))
		for n, p := range open {
			sent := over * time.Duration(n+1) / time.Duration(len(open))
			sent = (sent + spreadStep - 1).Truncate(spreadStep)
			if s.rate > 0 { // the next message includes the gap
				sent = min(sent, time.Duration(s.rng.ExpFloat64()/s.rate*float64(time.Second)))
			}
			s.after(subscribed-s.redisDown+sent, func() {
				p.refetches.add(p.now)
				p.recovered = append(p.recovered, p.now)
			})
		}
	}
}

// cut closes all connections at the same time, like a load balancer that is restarted.
func (s *sim) cut() {
	s.proxyUp = s.proxyDown
	for _, p := range s.pages {
		p.disconnect(s.lastPing())
	}
}
