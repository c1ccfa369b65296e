package inspect

import (
	"context"
	"errors"
	"sync"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// checkAnnounced connects to all nodes of a cluster at the addresses that the cluster announces: a hub prefers the primary
// that owns the slot of the control channel, and needs the others after a failover.
func (i *inspector) checkAnnounced(ctx context.Context) error {
	if !i.server.IsCluster() {
		return nil
	}
	nothing := func(context.Context, *goredis.Conn) error { return nil }
	conn := i.server.NewConn(ctx, topology.Target{}, nothing)
	if err := conn.Use(); err != nil && !acl.IsReply(err) && !errors.Is(err, topology.FaultPartitioned) {
		return err
	}
	addrs, owner := conn.Announced(), conn.Owner(i.ControlChannel)
	faults := make([]error, len(addrs))
	var all sync.WaitGroup
	for n, addr := range addrs {
		all.Go(func() {
			// An error reply does not matter: the node was reached.
			err := i.server.NewConn(ctx, topology.Target{Addr: addr}, nothing).Use()
			if err != nil && !errors.Is(err, topology.FaultPartitioned) && (!acl.IsReply(err) || goredis.IsAuthError(err)) {
				faults[n] = err
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	others := 0
	for n, addr := range addrs {
		switch err := faults[n]; {
		case err == nil:
		case addr == owner && i.StreamKey == "":
			f := i.server.Fault(err, false)
			i.report.Warn("redis-announced", f.Advice, "hubs cannot subscribe to %s, the primary that owns the slot of the control channel, and use other nodes: %s", addr, f.Text())
		default:
			others++
		}
	}
	for n, addr := range addrs {
		if err := faults[n]; err != nil && (addr != owner || i.StreamKey != "") {
			f := i.server.Fault(err, false)
			i.report.Warn("redis-announced", f.Advice, "hubs cannot use %d of %d cluster nodes after a failover, for example %s: %s", others, len(addrs), addr, f.Text())
			break
		}
	}
	return nil
}
