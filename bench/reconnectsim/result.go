package main

import (
	"slices"
	"time"
)

// bin is the finest time that series tell apart.
const bin = 100 * time.Millisecond

// A series counts what happens, by bins.
type series []int

func (s *series) add(at time.Duration) {
	for len(*s) <= int(at/bin) {
		*s = append(*s, 0)
	}
	(*s)[at/bin]++
}

// peak is the most within any second.
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

// total adds up several, bin by bin.
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

// result is what a scenario did.
type result struct {
	logins, refetches series          // at the app
	back              []time.Duration // for each page that was cut, or must hear of a gap, each time: until it had a stream, or had heard
	took              time.Duration   // a deploy, until its last step
	mostAway          int
	busy              int
	turnedAway        int // by the balancer, or refused
	dropped           int // SYNs
	replayed, lost    float64
}

// quantile is q of a sorted list.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// simulate runs one scenario from a fleet at rest.
func simulate(p params, happen func(*sim)) *sim {
	s := newSim(p)
	happen(s)
	s.run()
	slices.Sort(s.back)
	return s
}

// peakConnects is the most connects within any second at any hub.
func (s *sim) peakConnects() (most int) {
	for _, h := range s.hubs {
		most = max(most, h.connects.peak())
	}
	return most
}
