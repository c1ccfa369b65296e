package topology

import (
	"context"
	"errors"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
)

// refusals records why Redis rejected a connection at its first command, HELLO (protected mode,
// maxclients). go-redis treats any error reply to HELLO as that of an old Redis. It continues, and
// returns only EOF.
type refusals struct {
	err error // set before the first command on the connection returns
}

func (r *refusals) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (r *refusals) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		err := next(ctx, cmd)
		if goredis.HasErrorPrefix(err, "DENIED") || goredis.IsMaxClientsError(err) {
			r.err = err
		}
		return err
	}
}

func (r *refusals) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

// errSentinel means that the server is a Sentinel. It accepts subscriptions, but nothing is published to users there.
var errSentinel = errors.New("redis_mode:sentinel")

// rejectSentinels is a go-redis hook that fails HELLO if the reply is that of a Sentinel: go-redis then does not use
// the connection.
type rejectSentinels struct{}

func (rejectSentinels) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (rejectSentinels) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		err := next(ctx, cmd)
		if hello, ok := cmd.(*goredis.MapStringInterfaceCmd); ok && err == nil && hello.Val()["mode"] == "sentinel" {
			err = errSentinel
			cmd.SetErr(err)
		}
		return err
	}
}

func (rejectSentinels) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

// catchPanic turns a panic of go-redis into an error: go-redis panics if a reply does not have the type
// that the command expects. It is deferred only around calls of go-redis, to avoid hiding other
// panics.
func catchPanic(err *error) {
	if v := recover(); v != nil {
		*err = BadReply(fmt.Sprint("go-redis: ", v))
	}
}

// catchPanics is a go-redis hook: see catchPanic.
type catchPanics struct{}

func (catchPanics) DialHook(next goredis.DialHook) goredis.DialHook { return next }

func (catchPanics) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	call := func(ctx context.Context, cmd goredis.Cmder) (err error) {
		defer catchPanic(&err)
		return next(ctx, cmd)
	}
	return func(ctx context.Context, cmd goredis.Cmder) error {
		err := call(ctx, cmd)
		if err != nil {
			cmd.SetErr(err)
		}
		return err
	}
}

func (catchPanics) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []goredis.Cmder) (err error) {
		defer catchPanic(&err)
		return next(ctx, cmds)
	}
}
