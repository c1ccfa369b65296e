package topology

import (
	"context"
	"fmt"

	goredis "github.com/redis/go-redis/v9"
)

// refusals keeps the reason why Redis refused a connection at its first
// command, HELLO (protected mode, maxclients). go-redis takes any error reply to
// HELLO for an old Redis and continues, and then returns EOF only.
type refusals struct {
	err error // set before the first use of the connection returns
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

// catchPanic makes an error of a panic in go-redis, which assumes that a reply has the type
// that the command has. Deferred around calls of go-redis only: other panics must not be hidden.
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
