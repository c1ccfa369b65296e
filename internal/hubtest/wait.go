package hubtest

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// Patience is the timeout for expected conditions. It is long because it only matters to a test that fails.
const Patience = 30 * time.Second

// Soon is what "immediately" means on a busy machine.
const Soon = 5 * time.Second

// Eventually waits until done returns true.
func Eventually(tb testing.TB, what string, done func() bool) {
	tb.Helper()
	Within(tb, Patience, what, done)
}

// Within is Eventually with a given timeout.
func Within(tb testing.TB, d time.Duration, what string, done func() bool) {
	tb.Helper()
	for start := time.Now(); !done(); time.Sleep(PollInterval(time.Since(start))) {
		if time.Since(start) > d {
			tb.Fatalf("timeout after %v while waiting until %s", d, what)
		}
	}
}

// PollInterval returns how long to wait before a condition is checked again. It grows with the time waited so far:
// many checks cost CPU time, which other tests need.
func PollInterval(waited time.Duration) time.Duration {
	return min(max(waited/8, 2*time.Millisecond), 20*time.Millisecond)
}

// Each runs f for 0…n-1, 32 at a time, and fails the test with the first error.
func Each(tb testing.TB, n int, f func(i int) error) {
	tb.Helper()
	var (
		running sync.WaitGroup
		work    = make(chan int)
		first   = make(chan error, 1)
	)
	for range min(n, 32) {
		running.Go(func() {
			for i := range work {
				if err := f(i); err != nil {
					select {
					case first <- fmt.Errorf("number %d: %w", i, err):
					default:
					}
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	running.Wait()
	select {
	case err := <-first:
		tb.Fatal(err)
	default:
	}
}
