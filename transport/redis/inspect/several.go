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
	var found topology.Identity // by the last connection
	lookUp := func(ctx context.Context) (topology.Identity, error) {
		err := i.server.NewConn(ctx, topology.Target{}, func(ctx context.Context, cn *goredis.Conn) (err error) {
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
	several := servers.Several(ctx, time.Second, first, lookUp)
	switch {
	case several && topology.AreIndependent(first, found):
		i.report.Fail("redis-several", topology.IndependentAdvice, "the address leads to several primaries: a hub receives only what is published to one of them")
	case several:
		i.report.Warn("redis-several", i.server.SeveralAdvice(first), "the address leads to several servers: a hub detects a failover only when a probe is lost, up to 90 s later")
	case first.Mode == "cluster":
		i.report.Warn("redis-cluster-url", i.server.SeveralAdvice(first), "the server is a node of a cluster: a hub does not connect to another node if this one fails")
	}
	return nil
}
