package redis

import (
	"context"
	"errors"
	"strings"
	"time"

	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// Redis closes a subscriber whose output buffer stays over the soft limit of client-output-buffer-limit
// (pubsub 32mb 8mb 60) for too long. It notes when the buffer exceeds the limit, but checks whether it
// is below the limit again only when a reply is added to the buffer's list, and not when the buffer
// was sent. Short replies go to a separate array of 16 KiB. So after one message over the soft limit,
// the next one ends the subscription if it is published more than 60 s later, although everything
// was sent immediately. (Redis 7.0, networking.c: checkClientOutputBufferLimits is skipped while
// the list is empty.)
//
// A reply that does not fit into the array makes Redis check. Such a reply is that to a PING with a
// long payload.
const (
	// softLimitPing is the size of its payload in bytes. 16,361 bytes suffice for Redis 7.0. The rest
	// is for allocators that round the array up: Redis uses all of it.
	softLimitPing = 20 << 10
	// softLimitBytes is how many bytes are received between two of them. A message over a soft limit of
	// at least this size always has a PING after it. Short messages count too: many of them in one transaction
	// or script exceed the limit together, and then the next message over the limit ends the subscription.
	softLimitBytes = 64 << 10
	// softLimitEvery is the minimum time between two of them. If Redis handles one while the next
	// large message is in its buffer, another one follows well within the time of the soft limit.
	softLimitEvery = 500 * time.Millisecond
)

// countReceived requests a PING against the soft limit if enough has arrived since the last
// request. The receiving goroutine calls it after each batch.
func (s *subscription) countReceived() {
	if n := s.link.Activity.Bytes(); n-s.pinged >= softLimitBytes {
		s.pinged = n
		select {
		case s.large <- struct{}{}:
		default: // one is requested already, and is sent after what has arrived now
		}
	}
}

// clearSoftLimit sends the PINGs. The receiving goroutine does not, because it must not wait for a
// write.
func (s *subscription) clearSoftLimit(ctx context.Context) {
	payload := strings.Repeat("x", softLimitPing)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.large:
		}
		if s.noPing.Load() {
			return
		}
		err := s.ping(pendingCommand{kind: pingOnly}, payload)
		if errors.Is(err, topology.ErrEnded) {
			return // the connection has just ended, and receive returns why
		}
		if err != nil {
			s.end(err)
			return
		}
		if !pause.Sleep(ctx, softLimitEvery) {
			return
		}
	}
}
