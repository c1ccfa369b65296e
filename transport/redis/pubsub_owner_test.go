package redis

import (
	"testing"
	"testing/synctest"
	"time"
)

// A node that fails each time it is tried costs fewer and fewer gaps. One that worked for a while is followed again soon.
func TestFailedNodeIsAvoidedForLongerEachTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const late = 30 * time.Second // until the next probe
		var f failedNode
		avoided := func() time.Duration {
			start := time.Now()
			for f.avoid() == "a" {
				time.Sleep(time.Second)
			}
			return time.Since(start).Round(time.Minute)
		}
		for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 32} {
			f = f.next("a")
			for range 100 { // no node works, or none is reached
				time.Sleep(100 * time.Millisecond)
				f = f.next("a").next("")
			}
			if got := avoided(); got != want*time.Minute {
				t.Errorf("avoided for %v, want %v min", got, int(want))
			}
			time.Sleep(late)
		}
		time.Sleep(2 * avoidMax)
		for _, address := range []string{"a", "b", "a"} {
			if f = f.next(address); f.wait != avoidFor {
				t.Errorf("%s is avoided for %v", address, f.wait)
			}
		}
	})
}
