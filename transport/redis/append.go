package redis

import (
	"context"
	"errors"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// Append adds a message for a channel to a Redis stream and returns the entry's id. It does not trim
// the stream: the app decides how long entries stay. Like Publish, it makes one attempt.
func (c *Commands) Append(ctx context.Context, key, channel, payload string) (id string, err error) {
	return c.add(ctx, key, entryOf(channel, payload)...)
}

// entryOf returns the fields of a message's entry.
func entryOf(channel, payload string) []string { return []string{"ch", channel, "data", payload} }

// AppendControl adds a control command for every hub that reads the Redis stream.
func (c *Commands) AppendControl(ctx context.Context, key string, command Control) (id string, err error) {
	return c.add(ctx, key, "ctl", command.String())
}

func (c *Commands) add(ctx context.Context, key string, fields ...string) (id string, err error) {
	xadd := func(client goredis.Cmdable) error {
		id, err = client.XAdd(ctx, &goredis.XAddArgs{Stream: key, Values: fields}).Result()
		return err
	}
	err = c.doKey(ctx, key, xadd)
	if err == nil || errors.Is(err, context.Canceled) {
		return id, err
	}
	return "", c.appendFault(err, key)
}

func (c *Commands) appendFault(err error, key string) error {
	return c.server.Denied(err, "append to "+key, "+xadd ~"+acl.Escape(key))
}

// doKey is do for commands on a key, and follows redirections in a cluster. It calls run again only after a node has not
// executed the command.
func (c *Commands) doKey(ctx context.Context, key string, run func(goredis.Cmdable) error) error {
	err := c.do(ctx, topology.Target{Key: key}, func(client *goredis.Client) error { return run(client) })
	addr := ""
	for range maxRedirections {
		to, ok := c.server.Redirection(err, key, addr)
		if !ok {
			break
		}
		addr = to.Addr
		err = c.server.AskNode(ctx, to, run)
	}
	return err
}
