package redis

import (
	"sync/atomic"

	"usercast/internal/histogram"
)

// Stats is a snapshot of a feed. Counters only grow. When nothing moves,
// Received = Routed + Unrouted + Malformed + TooLarge. Probes are not counted,
// and control commands have counters of their own.
type Stats struct {
	Feed  string // "pubsub" or "stream"
	Redis string // Server.Name

	Received  uint64 // messages that Redis handed over
	Routed    uint64 // went to at least one stream
	Unrouted  uint64 // went to no stream
	Malformed uint64 // its channel names no user
	TooLarge  uint64 // over MaxPayload

	ControlReceived  uint64 // control commands that Redis handed over
	ControlMalformed uint64 // those of them that are not valid

	Connected  bool   // a subscription exists
	Generation uint64 // subscriptions so far, this one included
	Reconnects uint64 // those after the first

	Probe Histogram // from a probe's PUBLISH until it came back; pub/sub only
}

// Histogram counts durations in buckets.
type Histogram = histogram.Snapshot

// counters are written by the receiving goroutine alone.
type counters struct {
	received, routed, unrouted, malformed, tooLarge atomic.Uint64

	controlReceived, controlMalformed atomic.Uint64

	connected  atomic.Bool
	generation atomic.Uint64
}

// stats is what the counters know.
func (c *counters) stats() Stats {
	generation := c.generation.Load()
	return Stats{
		Received:         c.received.Load(),
		Routed:           c.routed.Load(),
		Unrouted:         c.unrouted.Load(),
		Malformed:        c.malformed.Load(),
		TooLarge:         c.tooLarge.Load(),
		ControlReceived:  c.controlReceived.Load(),
		ControlMalformed: c.controlMalformed.Load(),
		Connected:        c.connected.Load(),
		Generation:       generation,
		Reconnects:       max(generation, 1) - 1,
	}
}
