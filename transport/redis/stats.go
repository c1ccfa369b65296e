package redis

import (
	"sync/atomic"

	"usercast/internal/histogram"
	"usercast/transport/redis/internal/fleet"
)

// Stats is a snapshot of a feed. Counters only grow. While the feed is idle,
// Received = Routed + Unrouted + Malformed + TooLarge. Probes are not counted,
// and control commands have counters of their own.
type Stats struct {
	Feed  string // "pubsub" or "stream"
	Redis string // Server.Name

	Received  uint64 // messages received from Redis
	Routed    uint64 // enqueued for at least one stream
	Unrouted  uint64 // not enqueued for any stream
	Malformed uint64 // the channel does not contain a user
	TooLarge  uint64 // over MaxPayload

	ControlReceived  uint64 // control commands received from Redis
	ControlMalformed uint64 // part of ControlReceived: invalid

	Connected  bool   // a subscription exists
	Generation uint64 // subscriptions so far, this one included
	Reconnects uint64 // subscriptions after the first

	Probe Histogram // time from publishing a probe to receiving it; pub/sub only

	// Pub/sub with one Redis only; otherwise hubs write no markers.
	Hubs       []Hub  // of which a marker was received within 30 s, and this one; sorted by name
	Marked     bool   // a marker was received, or none is expected; also true with the stream feed
	Mismatches uint64 // times that this hub had missed messages that another hub received
}

// A Hub is one hub of the fleet, as its newest marker describes it.
type Hub = fleet.Hub

// Histogram counts durations in buckets.
type Histogram = histogram.Snapshot

// counters are written only by the receiving goroutine.
type counters struct {
	received, routed, unrouted, malformed, tooLarge atomic.Uint64

	controlReceived, controlMalformed atomic.Uint64

	connected  atomic.Bool
	generation atomic.Uint64
}

// stats returns the counters as Stats.
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
