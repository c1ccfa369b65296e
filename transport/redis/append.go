package redis

import (
	"context"
	"errors"

	goredis "github.com/redis/go-redis/v9"
)

// Append adds a message for a channel to the log and returns the entry's id.
// Nothing is trimmed: how long entries stay is for the app to decide. Like Publish it
// is tried once.
func (c *Commands) Append(ctx context.Context, key, channel, payload string) (id string, err error) {
	return c.add(ctx, key, "ch", channel, "data", payload)
}

// AppendOrder adds an order for every hub that follows the log.
func (c *Commands) AppendOrder(ctx context.Context, key string, order Control) (id string, err error) {
	return c.add(ctx, key, "ctl", order.String())
}

func (c *Commands) add(ctx context.Context, key string, fields ...string) (id string, err error) {
	xadd := func(client goredis.Cmdable) error {
		id, err = client.XAdd(ctx, &goredis.XAddArgs{Stream: key, Values: fields}).Result()
		return err
	}
	err = c.do(ctx, key, func(client *goredis.Client) error { return xadd(client) })
	// A node that sends a command on has not run it.
	asked := ""
	for range maxRedirections {
		to, ok := c.server.redirection(err, key, asked)
		if !ok {
			break
		}
		asked = to.addr
		err = c.server.askNode(ctx, to, xadd)
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return id, err
	}
	return "", c.server.denied(err, "append to "+key, "+xadd ~"+globEscaper.Replace(key))
}
