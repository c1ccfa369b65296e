package inspect

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/lease"
	"usercast/transport/redis/internal/topology"
)

// checkPresence checks what hubs need to keep the set of users that are online. It does not change the set.
func (i *inspector) checkPresence(ctx context.Context) error {
	keys := lease.KeysOf(i.Channels.Users)
	to := topology.Target{}
	if i.server.KeysDiffer() {
		to.Key = keys.Users
	}
	return i.ask(ctx, to, func(ctx context.Context, cn *goredis.Conn) error {
		warn := func(which acl.Permission, err error) { i.missing(Warn, which, err) }
		do := func(run func(goredis.Cmdable) error) error { return run(cn) }
		if err := keys.Check(ctx, do, warn); err != nil {
			if goredis.HasErrorPrefix(err, "WRONGTYPE") {
				i.report.Fail("redis-presence", "delete the key "+keys.Users+" or use another --channel-prefix", "the key %s or %s has another type than hubs use", keys.Users, keys.Swept)
				return nil
			}
			return err
		}
		err := cn.Publish(ctx, keys.Channel, fmt.Sprintf(`{"user":"%s%s","online":false}`, unknown, i.token)).Err()
		return i.try(keys.PermissionPublish(), err)
	})
}
