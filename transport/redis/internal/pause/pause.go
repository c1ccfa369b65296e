// Package pause computes backoff and jitter, and sleeps until a context ends.
package pause

import (
	"context"
	"math/rand/v2"
	"time"
)

// Sleep waits for d, and returns false if ctx ends first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// Jitter returns d, randomly changed by up to 10 % in either direction.
func Jitter(d time.Duration) time.Duration {
	tenth := int64(d) / 10
	return d - time.Duration(tenth) + time.Duration(rand.Int64N(2*tenth+1))
}

// A Backoff returns the pauses between attempts. The first one is Min, and each one doubles up to Max.
// Each is shortened at random by up to a half, so that the hubs of a fleet do not reconnect at the
// same moment. For one goroutine.
type Backoff struct {
	Min, Max time.Duration
	next     time.Duration // zero at first
}

// Next returns the next pause.
func (b *Backoff) Next() time.Duration {
	b.next = min(max(b.next, b.Min), b.Max)
	d := b.next - time.Duration(rand.Int64N(int64(b.next)/2+1))
	b.next *= 2
	return d
}

// Reset makes the next pause the first one again.
func (b *Backoff) Reset() { b.next = 0 }
