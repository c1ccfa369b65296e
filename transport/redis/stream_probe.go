package redis

import (
	"context"
	"time"

	"usercast/transport/redis/internal/pause"
	"usercast/transport/redis/internal/topology"
)

// probe makes a new connection and returns an error if it reaches another server.
func (r *reader) probe(ctx context.Context) error {
	at := r.at.Load()
	primary := at.Identity
	found, err := r.lookUp(ctx)
	known := err == nil && r.servers.Saw(found, r.probeEvery)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		r.report.probeFailed(r.server.Fault(err, false))
		return nil
	case !found.Differs(primary):
		r.at.CompareAndSwap(at, &location{primary, at.address, false})
	case at != r.at.Load() || at.asking:
		return nil // meanwhile a redirection was followed, or the slot still belongs to the other node
	case !r.severalServers(ctx, primary, found, known || r.oneOfSeveral):
		return topology.FaultMoved
	default:
		r.oneOfSeveral = true
		if !r.isAmong(ctx, primary) {
			return topology.FaultMoved
		}
	}
	r.report.probeSent()
	return nil
}

// isAmong connects to the address until a connection reaches primary. It returns false if none does
// within two probe intervals.
func (r *reader) isAmong(ctx context.Context, primary topology.Identity) bool {
	for end := time.Now().Add(probeIntervals * r.probeEvery); time.Now().Before(end); {
		if !pause.Sleep(ctx, pause.Jitter(r.probeEvery/redialsPerInterval)) {
			return true
		}
		if found, err := r.lookUp(ctx); err == nil && found.RunID == primary.RunID {
			return !found.Differs(primary)
		}
	}
	return false
}
