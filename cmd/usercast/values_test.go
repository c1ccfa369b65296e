package main

import (
	"math"
	"testing"
	"time"
)

func TestSumOfDurationsDoesNotOverflow(t *testing.T) {
	for _, test := range []struct {
		durations []time.Duration
		want      time.Duration
	}{
		{nil, 0},
		{[]time.Duration{time.Second, 0, time.Minute}, 61 * time.Second},
		{[]time.Duration{math.MaxInt64 - 1, 1}, math.MaxInt64},
		{[]time.Duration{math.MaxInt64, math.MaxInt64, math.MaxInt64}, math.MaxInt64},
		{[]time.Duration{math.MaxInt64, 10 * time.Second, math.MaxInt64}, math.MaxInt64},
	} {
		if got := addUp(test.durations...); got != test.want {
			t.Errorf("%v: %v, want %v", test.durations, got, test.want)
		}
	}
}
