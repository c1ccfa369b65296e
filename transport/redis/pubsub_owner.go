package redis

import (
	"context"
	"time"

	"usercast/transport/redis/internal/topology"
)

const (
	// avoidFor is how long a node of a cluster that has failed is tried last, although it owns the slot of the control
	// channel. Otherwise a node that accepts connections but does not work would be tried every few seconds,
	// and each time is a gap. The time doubles, up to avoidMax, each time that the node fails again.
	avoidFor = time.Minute
	avoidMax = 32 * time.Minute
	// followFor is how long a subscription at another node than the owner is probed every few seconds. A failover takes
	// less time.
	followFor = 2 * time.Minute
)

// A failedNode is a node of a cluster that could not be subscribed to, did not respond, or does not receive the
// messages of other nodes.
type failedNode struct {
	address string
	at      time.Time
	wait    time.Duration // it is tried last for this time
}

// avoid returns the node to try last, or "".
func (f failedNode) avoid() string {
	if time.Since(f.at) > f.wait {
		return ""
	}
	return f.address
}

// next returns the state after a node has failed. The address is "" if no node was reached.
func (f failedNode) next(address string) failedNode {
	wait := avoidFor
	switch since := time.Since(f.at); {
	case address == "":
		return f
	case address != f.address:
	case since <= f.wait: // it was tried last, because no other node worked
		wait = f.wait
	case since <= 3*f.wait: // it was tried soon after the wait
		wait = min(2*f.wait, avoidMax)
	}
	return failedNode{address, time.Now(), wait}
}

// ownerElsewhere returns the address of the primary that owns the slot of the control channel if it is not the
// subscribed node, or "".
func (s *subscription) ownerElsewhere() string {
	if s.owner == s.link.Addr || s.owner == s.ownName {
		return ""
	}
	return s.owner
}

// urgent reports whether a failover of the owner is expected.
func (s *subscription) urgent() bool {
	return s.ownerElsewhere() != "" && time.Since(s.since) < followFor
}

// probeOwner ends the subscription if another node owns the slot of the control channel: all hubs subscribe to the
// owner, so that they receive all messages in the same order. The owner must confirm that it is the owner, and a
// message that is published there must reach this subscription: otherwise it is partitioned.
func (s *subscription) probeOwner(ctx context.Context) error {
	owner := s.ownerElsewhere()
	if owner == "" {
		return nil
	}
	token := s.newToken()
	sent, err := s.sendProbe(ctx, topology.Target{Addr: owner}, token)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		s.report.ownerUnreachable(s.server.Fault(err, false))
		return nil
	case sent.owner != owner: // what the other node had reported is outdated
		return nil
	case sent.found.RunID != "" && sent.found.RunID == s.primary.RunID:
		s.ownName = owner
		return nil
	case owner == s.avoiding.avoid():
		return nil
	}
	if sent.published && s.echoes.Load() {
		// An error means that the probe is lost, or that receive returns why the connection has ended.
		if _, err := s.awaitEcho(ctx, token, true, sent.start, time.After(s.cfg.ProbeTimeout)); err != nil || ctx.Err() != nil {
			return nil
		}
	}
	return topology.FaultOwnerMoved
}
