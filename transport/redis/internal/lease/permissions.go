package lease

import (
	"context"
	"strings"

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

// Check runs all commands of the scripts, except PUBLISH, in a way that changes nothing. It calls missing for each command that
// is not allowed or not available, and once for a key that is not allowed. It returns the first other error. The reply to a
// script without a permission does not name the command.
func (k Keys) Check(ctx context.Context, do Do, missing func(acl.Permission, error)) error {
	commands := []struct {
		consequence string
		key         string // "": none
		args        []any
	}{
		{notOnline, "", []any{"EVAL", emptySource, 0}},
		{notOnline, "", []any{"EVALSHA", empty.Hash(), 0}},
		{notOnline, "", []any{"TIME"}},
		// The empty string is not a user.
		{notOnline, k.Users, []any{"ZMSCORE", k.Users, ""}},
		{notOnline, k.Users, []any{"ZADD", k.Users, "XX", 0, ""}},
		{notOffline, k.Users, []any{"ZRANGEBYSCORE", k.Users, 1, 0}},
		{notOffline, k.Users, []any{"ZREM", k.Users, ""}},
		{notOffline, k.Users, []any{"ZCOUNT", k.Users, 1, 0}},
		{notOffline, k.Swept, []any{"GET", k.Swept}},
		{notOffline, k.Swept, []any{"SET", k.Swept, "", "EX", 0}}, // invalid
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
	refusedKey := ""
	for i, c := range commands {
		err, name := replies[i].Err(), c.args[0].(string)
		switch {
		case goredis.IsPermissionError(err) && strings.Contains(err.Error(), " key"):
			if refusedKey != c.key {
				missing(acl.Permission{Command: "commands on " + c.key, Grant: "~" + acl.Escape(c.key), Consequence: c.consequence}, err)
			}
			refusedKey = c.key
		case goredis.IsPermissionError(err), goredis.HasErrorPrefix(err, "unknown command"):
			missing(acl.Permission{Command: name + " for presence", Grant: "+" + strings.ToLower(name), Consequence: c.consequence}, err)
		case err == nil, err == goredis.Nil, goredis.HasErrorPrefix(err, "NOSCRIPT"), goredis.HasErrorPrefix(err, "invalid expire time"):
		default:
			return err
		}
	}
	return nil
}

// Grants returns the permissions for the scripts, except for the channel: commands, and keys.
func (k Keys) Grants() (commands, keys string) {
	return "+eval +evalsha +time +zmscore +zadd +zrangebyscore +zrem +zcount +get +set +publish", "~" + acl.Escape(k.Users) + " ~" + acl.Escape(k.Swept)
}
