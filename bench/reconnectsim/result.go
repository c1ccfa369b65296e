package main

import (
	"slices"
	"time"
)

// bin is the resolution of series.
const bin = 100 * time.Millisecond

// A series counts events per bin.
type series []int

func (s *series) add(at time.Duration) {
	for len(*s) <= int(at/bin) {
		*s = append(*s, 0)
	}
	(*s)[at/bin]++
}

// peak returns the maximum within a second.
func (s series) peak() (most int) {
	const second = int(time.Second / bin)
	sum := 0
	for i, n := range s {
		if sum += n; i >= second {
			sum -= s[i-second]
		}
		most = max(most, sum)
	}
	return most
}

// total adds up several series.
func total(all ...series) (sum series) {
	for _, s := range all {
		for i, n := range s {
			if i == len(sum) {
				sum = append(sum, 0)
			}
			sum[i] += n
		}
	}
	return sum
}

// A result has the results of a scenario.
type result struct {
	checks, refetches series // requests to the app
	// For each disconnect, the time until the page has a stream again. For each announced gap, the time until it arrives.
	recovered       []time.Duration
	took            time.Duration // duration of a deploy
	maxDisconnected int
	busy            int
	refused         int // rejected by the load balancer
	dropped         int // dropped SYNs
	replayed, lost  float64
}

// quantile returns the quantile q of a sorted list.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// simulate runs one scenario with an idle fleet.
func simulate(p params, happen func(*sim)) *sim {
	s := newSim(p)
	happen(s)
	s.run()
	slices.Sort(s.recovered)
	return s
}

// peakConnects returns the maximum number of connects within a second at one hub.
func (s *sim) peakConnects() (most int) {
	for _, h := range s.hubs {
		most = max(most, h.connects.peak())
	}
	return most
}
