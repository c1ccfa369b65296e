package main

import (
	"maps"
	"slices"
	"time"
)

// A hub is a sequence of processes at the same address.
type hub struct {
	*sim
	boot     int           // how often it was restarted
	up       bool          // it accepts connections
	since    time.Duration // when its process subscribed, and published its first marker
	draining bool
	seen     bool // the load balancer sends pages to it
	clients  int
	load     int // connections, as counted by the load balancer

	free     time.Duration // when its CPU has processed all accepted connections
	waiting  int           // accepted connections that are not processed yet
	connects series

	// Session checks: see authenticate.
	cached    map[int]time.Duration // accepted users, with the expiry
	pending   map[int][]func(accepted bool)
	responses []time.Duration // when the app responds to each check of this process
}

// accept adds a connection to the queue of the CPU.
func (h *hub) accept(p *page) {
	h.connects.add(h.now)
	h.load++
	h.waiting++
	h.free = max(h.free, h.now) + h.connectCost/time.Duration(h.cores)
	boot := h.boot
	h.after(h.free-h.now, func() {
		if h.boot != boot { // the process was killed meanwhile
			h.after(p.retry, p.connect)
			return
		}
		h.waiting--
		h.authenticate(p.user, func(accepted bool) { h.register(p, boot, accepted) })
	})
}

func (h *hub) register(p *page, boot int, accepted bool) {
	switch {
	case h.boot != boot:
		h.after(p.retry, p.connect)
	case !accepted, h.draining, h.maxClients > 0 && h.clients >= h.maxClients:
		p.rejected(h)
	default:
		p.opened(h)
	}
}

// authenticate sends a session check to the app, unless the user is cached or a check of the user is in flight.
func (h *hub) authenticate(user int, then func(accepted bool)) {
	if until, ok := h.cached[user]; ok && h.now < until {
		then(true)
		return
	}
	h.pending[user] = append(h.pending[user], then)
	if len(h.pending[user]) > 1 {
		return
	}
	// All checks take the same time. So a check starts when the check authConcurrency positions before it has ended.
	start := h.now
	if n := len(h.responses) - h.authConcurrency; n >= 0 {
		start = max(start, h.responses[n])
	}
	deadline := start + h.authTimeout
	if h.authWaitCounts {
		deadline = h.now + h.authTimeout
	}
	response, accepted := start+h.appTime, true
	if response > deadline {
		response, accepted = deadline, false
	}
	if start < min(deadline, h.now+h.authTimeout) {
		h.responses = append(h.responses, response)
		h.after(start-h.now, func() { h.checks.add(h.now) })
	} else {
		response, accepted = h.now+h.authTimeout, false
	}
	boot := h.boot
	h.after(response-h.now, func() {
		if h.boot != boot { // exit has rejected them
			return
		}
		waiting := h.pending[user]
		delete(h.pending, user)
		if accepted {
			h.cached[user] = h.now + h.authCache
		}
		for _, then := range waiting {
			then(accepted)
		}
	})
}

// exit ends the process and closes its connections.
func (h *hub) exit() {
	h.draining = false
	h.boot++
	h.waiting, h.free = 0, 0
	clear(h.cached)
	for _, user := range slices.Sorted(maps.Keys(h.pending)) {
		for _, then := range h.pending[user] {
			then(false)
		}
	}
	clear(h.pending)
	h.responses = nil
	for _, p := range h.sim.pages {
		if p.open && p.hub == h {
			p.disconnect(h.lastPing())
		}
	}
	h.load = 0
	h.up = false
}

// open returns the pages that have a stream at this hub, in random order.
func (h *hub) open() (open []*page) {
	for _, p := range h.sim.pages {
		if p.open && p.hub == h {
			open = append(open, p)
		}
	}
	h.rng.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
	return open
}
