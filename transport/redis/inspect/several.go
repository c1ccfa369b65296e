package inspect

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// checkSeveral makes a few connections, and reports whether the address leads to several servers, or to one node of a
// cluster. It reports nothing if INFO is not allowed.
func (i *inspector) checkSeveral(ctx context.Context) error {
	if !i.server.Fixed() {
		return nil
	}
	lookUp := func(ctx context.Context) (found topology.Identity, err error) {
		err = i.server.NewConn(ctx, topology.Target{}, func(ctx context.Context, cn *goredis.Conn) (err error) {
			found, err = topology.Introduce(ctx, cn, func(acl.Permission, error) {}) // askAll has reported it
			return err
		}).Use()
		return found, err
	}
	first, err := lookUp(ctx)
	if err != nil || first.RunID == "" {
		return err
	}
	var servers topology.Servers
	switch {
	case servers.Several(ctx, time.Second, first, lookUp):
		i.report.Warn("redis-several", i.server.SeveralAdvice(first), "the address leads to several servers: a hub detects a failover only when a probe is lost, up to 90 s later")
	case first.Mode == "cluster":
		i.report.Warn("redis-cluster-url", i.server.SeveralAdvice(first), "the server is a node of a cluster: a hub does not connect to another node if this one fails")
	}
	return nil
}
