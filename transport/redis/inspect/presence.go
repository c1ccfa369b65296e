package inspect

import (
	"context"
	"fmt"
	"strings"

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
		noScripts := false
		warn := func(which acl.Permission, err error) {
			noScripts = noScripts || strings.HasPrefix(which.Command, "EVAL ")
			if goredis.IsPermissionError(err) {
				i.missing(Warn, which, err)
			} else {
				i.unavailable(Warn, which, err) // not only a note, because this inspection is for hubs that need it
			}
		}
		do := func(run func(goredis.Cmdable) error) error { return run(cn) }
		if err := keys.Check(ctx, do, warn); err != nil {
			if goredis.HasErrorPrefix(err, "WRONGTYPE") {
				i.report.Fail("redis-presence", "delete the key "+keys.Users+" or use another --channel-prefix", "the key %s or %s has another type than hubs use", keys.Users, keys.Swept)
				return nil
			}
			return err
		}
		if noScripts { // which publish; the channel could be tested only with a message
			return nil
		}
		message := fmt.Sprintf(`{"user":"%s%s","online":false}`, unknown, i.token)
		switch err := cn.Eval(ctx, tryPublish, nil, keys.Channel, message).Err(); {
		case err == nil: // it was published
			return nil
		case strings.Contains(err.Error(), "read-only"): // and not that it is not allowed, which Redis checks first
			return nil
		}
		// Either it is not allowed, and this error names the permission, or Redis is older than 7.0.
		return acl.Optional(cn.Publish(ctx, keys.Channel, message).Err(), keys.PermissionPublish(), warn)
	})
}

// tryPublish publishes in a script that must not, so that Redis 7.0 and later only check the permission. Subscribers of the
// app must not receive a change of a user who does not exist.
const tryPublish = "#!lua flags=no-writes\nreturn redis.call('PUBLISH', ARGV[1], ARGV[2])"
