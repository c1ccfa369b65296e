package lease

import (
	"context"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
)

// The consequences of missing permissions.
const (
	notOnline  = "users of this hub are not shown as online"
	notOffline = "this hub does not remove users that have left, and does not count online users"
)

// empty is a script that does nothing.
const emptySource = "return 1"

var empty = goredis.NewScript(emptySource)

// PermissionPublish is to publish transitions.
func (k Keys) PermissionPublish() acl.Permission {
	return acl.Permission{
		Command: "PUBLISH to " + k.Channel, Grant: "+publish &" + acl.Escape(k.Channel),
		Consequence: "users who come online or go offline are not published",
	}
}

// Check runs all commands of the scripts, except PUBLISH, in a way that changes nothing, and calls missing for each that is not
// allowed or not available. It returns the first other error. The reply to a script without the permission for a command does not name it.
func (k Keys) Check(ctx context.Context, do Do, missing func(acl.Permission, error)) error {
	users, swept := " ~"+acl.Escape(k.Users), " ~"+acl.Escape(k.Swept)
	commands := []struct {
		grant, consequence string
		args               []any
	}{
		{"+eval", notOnline, []any{"EVAL", emptySource, 0}},
		{"+evalsha", notOnline, []any{"EVALSHA", empty.Hash(), 0}},
		{"+time", notOnline, []any{"TIME"}},
		// The empty string is not a user.
		{"+zmscore" + users, notOnline, []any{"ZMSCORE", k.Users, ""}},
		{"+zadd" + users, notOnline, []any{"ZADD", k.Users, "XX", 0, ""}},
		{"+zrangebyscore" + users, notOffline, []any{"ZRANGEBYSCORE", k.Users, 1, 0}},
		{"+zrem" + users, notOffline, []any{"ZREM", k.Users, ""}},
		{"+zcount" + users, notOffline, []any{"ZCOUNT", k.Users, 1, 0}},
		{"+get" + swept, notOffline, []any{"GET", k.Swept}},
		{"+set" + swept, notOffline, []any{"SET", k.Swept, "", "EX", 0}}, // invalid
	}
	var replies []goredis.Cmder
	err := do(func(redis goredis.Cmdable) (err error) {
		replies, err = redis.Pipelined(ctx, func(p goredis.Pipeliner) error {
			for _, c := range commands {
				p.Do(ctx, c.args...)
			}
			return nil
		})
		return err
	})
	if len(replies) != len(commands) {
		return err
	}
	for i, c := range commands {
		err := replies[i].Err()
		switch {
		case goredis.IsPermissionError(err), goredis.HasErrorPrefix(err, "unknown command"):
			missing(acl.Permission{Command: c.args[0].(string) + " for presence", Grant: c.grant, Consequence: c.consequence}, err)
		case err == nil, err == goredis.Nil, goredis.HasErrorPrefix(err, "NOSCRIPT"), goredis.HasErrorPrefix(err, "invalid expire time"):
		default:
			return err
		}
	}
	return nil
}
