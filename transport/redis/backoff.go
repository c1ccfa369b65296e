package redis

import (
	"math/rand/v2"
	"time"
)

// backoff gives the pauses between attempts: min, then twice as long each time
// up to max, each shortened at random by up to a half, so that the hubs of a
// fleet do not come back in the same instant. For one goroutine.
type backoff struct {
	min, max time.Duration
	next     time.Duration // zero at first
}

func (b *backoff) pause() time.Duration {
	b.next = min(max(b.next, b.min), b.max)
	d := b.next - time.Duration(rand.Int64N(int64(b.next)/2+1))
	b.next *= 2
	return d
}

func (b *backoff) reset() { b.next = 0 }

// jitter is d, at random up to a tenth longer or shorter.
func jitter(d time.Duration) time.Duration {
	tenth := int64(d) / 10
	return d - time.Duration(tenth) + time.Duration(rand.Int64N(2*tenth+1))
}
