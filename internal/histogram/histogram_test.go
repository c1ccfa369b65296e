package histogram_test

import (
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"usercast/internal/histogram"
)

func TestBoundsAreUpperAndInclusive(t *testing.T) {
	var h histogram.Histogram
	for _, bound := range slices.Sorted(maps.Keys(h.Snapshot().Cumulative)) {
		var h histogram.Histogram
		d := time.Duration(math.Round(bound * float64(time.Second)))
		h.Observe(d)
		h.Observe(d + 1)
		s := h.Snapshot()
		for b, n := range s.Cumulative {
			want := uint64(0)
			switch {
			case b == bound:
				want = 1
			case b > bound:
				want = 2
			}
			if n != want {
				t.Errorf("%v and a nanosecond more: %d at most %v s, want %d", d, n, b, want)
			}
		}
	}
}

func TestExtremes(t *testing.T) {
	var h histogram.Histogram
	h.Observe(0)
	h.Observe(-time.Second) // a clock may be set back
	h.Observe(time.Hour)
	s := h.Snapshot()
	if s.Count != 3 {
		t.Errorf("count %d", s.Count)
	}
	bounds := slices.Sorted(maps.Keys(s.Cumulative))
	if first, last := bounds[0], bounds[len(bounds)-1]; s.Cumulative[first] != 2 || s.Cumulative[last] != 2 {
		t.Errorf("cumulative %v", s.Cumulative)
	}
	if want := time.Hour.Seconds() - 1; s.SumSeconds != want {
		t.Errorf("sum %v, want %v", s.SumSeconds, want)
	}
}

// In Prometheus, each bucket includes the ones below it.
func TestCumulativeGrowsUpToCount(t *testing.T) {
	var h histogram.Histogram
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for d := time.Microsecond; d < 8*time.Second; d *= 2 {
				h.Observe(d)
			}
		})
	}
	group.Wait()
	s := h.Snapshot()
	if s.Count != 4*23 {
		t.Errorf("count %d", s.Count)
	}
	var before uint64
	for _, bound := range slices.Sorted(maps.Keys(s.Cumulative)) {
		n := s.Cumulative[bound]
		if n < before || n > s.Count {
			t.Errorf("%d at most %v s, after %d", n, bound, before)
		}
		before = n
	}
	if before != s.Count {
		t.Errorf("%d in the last bucket of %d", before, s.Count)
	}
	if want := 4 * (1<<23 - 1) * 1e-6; math.Abs(s.SumSeconds-want) > 1e-6 {
		t.Errorf("sum %v, want %v", s.SumSeconds, want)
	}
}

// The sum would overflow a Duration (292 years) after 9 hours of 100,000 deliveries per second that take
// 2.8 s each.
func TestSumDoesNotWrap(t *testing.T) {
	var h histogram.Histogram
	for range 3 {
		h.Observe(math.MaxInt64)
	}
	if got, want := h.Snapshot().SumSeconds, 3*time.Duration(math.MaxInt64).Seconds(); got != want {
		t.Errorf("sum %v, want %v", got, want)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h histogram.Histogram
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			h.Observe(3 * time.Millisecond)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				h.Observe(3 * time.Millisecond)
			}
		})
	})
}

func TestObserveAllocatesNothing(t *testing.T) {
	var h histogram.Histogram
	if n := testing.AllocsPerRun(1000, func() { h.Observe(3 * time.Millisecond) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
