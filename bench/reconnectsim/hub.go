package main

import "time"

// A hub is one process after the other at the same address.
type hub struct {
	*sim
	boot     int  // how often it was started anew
	up       bool // it listens
	draining bool
	seen     bool // the balancer sends pages to it
	clients  int
	load     int // connections, as the balancer counts them

	free     time.Duration // when its CPU is done with all that it has accepted
	waiting  int           // connections that it has not come to yet
	connects series

	// Log-ins: see login.
	cached map[int]time.Duration // users, and until when
	asking map[int][]func(yes bool)
	asked  []time.Duration // when each question of this process was answered
}

// accept takes a connection into the queue of what costs CPU.
func (h *hub) accept(p *page) {
	h.connects.add(h.now)
	h.load++
	h.waiting++
	h.free = max(h.free, h.now) + h.connectCost/time.Duration(h.cores)
	boot := h.boot
	h.after(h.free-h.now, func() {
		if h.boot != boot { // killed meanwhile, the connection with it
			h.after(p.retry, p.connect)
			return
		}
		h.waiting--
		h.login(p.user, func(yes bool) { h.register(p, boot, yes) })
	})
}

func (h *hub) register(p *page, boot int, yes bool) {
	switch {
	case h.boot != boot:
		h.after(p.retry, p.connect)
	case !yes, h.draining, h.maxClients > 0 && h.clients >= h.maxClients:
		p.notNow(h)
	default:
		p.opened(h)
	}
}

// login asks the app, unless it has answered a moment ago or is being asked.
func (h *hub) login(user int, then func(yes bool)) {
	if until, ok := h.cached[user]; ok && h.now < until {
		then(true)
		return
	}
	h.asking[user] = append(h.asking[user], then)
	if len(h.asking[user]) > 1 {
		return
	}
	// Each takes the same time, so a place is free when the question that came as
	// many before it as there are places was answered.
	start := h.now
	if n := len(h.asked) - h.authAtOnce; n >= 0 {
		start = max(start, h.asked[n])
	}
	give := start + h.authTimeout
	if h.authWaitCounts {
		give = h.now + h.authTimeout
	}
	answer, yes := start+h.appTime, true
	if answer > give {
		answer, yes = give, false
	}
	if start < min(give, h.now+h.authTimeout) {
		h.asked = append(h.asked, answer)
		h.after(start-h.now, func() { h.logins.add(h.now) })
	} else {
		answer, yes = h.now+h.authTimeout, false
	}
	h.after(answer-h.now, func() {
		waiting := h.asking[user]
		delete(h.asking, user)
		if yes {
			h.cached[user] = h.now + h.authCache
		}
		for _, then := range waiting {
			then(yes)
		}
	})
}

// leave is the end of the process: what is connected is cut.
func (h *hub) leave() {
	h.up, h.draining = false, false
	h.boot++
	h.waiting, h.free = 0, 0
	clear(h.cached)
	clear(h.asking)
	h.asked = nil
	for _, p := range h.sim.pages {
		if p.open && p.hub == h {
			p.end()
		}
	}
	h.load = 0
}

// open is the pages that have a stream here, in random order.
func (h *hub) open() (open []*page) {
	for _, p := range h.sim.pages {
		if p.open && p.hub == h {
			open = append(open, p)
		}
	}
	h.rng.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	return open
}
