package load

import (
	"math"
	"testing"
	"time"
)

// With a very low rate, the time until the next message must not overflow.
func TestVeryLowRate(t *testing.T) {
	for _, test := range []struct {
		n    int
		rate float64
		want time.Duration
	}{
		{0, 1e-300, 0},
		{1, 1e-300, math.MaxInt64},
		{1, 1e-10, math.MaxInt64}, // 317 years
		{1, 0.5, 2 * time.Second},
		{3, 1000, 3 * time.Millisecond},
	} {
		if got := timeFor(test.n, test.rate); got != test.want {
			t.Errorf("%d at %v per second: %v, want %v", test.n, test.rate, got, test.want)
		}
		r := run{cfg: &Config{Rate: test.rate}}
		if n, wait := r.dueNow(0, test.n); test.n > 0 && (n > 0 || wait <= 0) {
			t.Errorf("%d sent at %v per second: %d more are due, or in %v", test.n, test.rate, n, wait)
		}
	}
}
