package redis

import (
	"context"
	"errors"
	"iter"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/topology"
)

// A Message is a payload for a channel.
type Message struct{ Channel, Payload string }

// The messages of a batch are sent in parts, and a part waits for the replies of the one before it. So a part is read and
// written within the timeout of one command, and Redis serves others in between.
const (
	maxPart      = 100
	maxPartBytes = 1 << 20 // exceeded by the last message of a part
)

// PublishAll publishes messages in order, over one connection. It returns how many of the first ones were published. After
// an error, any of the others may have been published as well: Redis rejects a message without those that follow it, and
// the connection can fail before the replies arrive. Like Publish, it makes one attempt.
func (c *Commands) PublishAll(ctx context.Context, messages []Message) (published int, err error) {
	if len(messages) == 0 {
		return 0, nil
	}
	// Redis replies to all messages of a part, so the first one that was not published is the one that was refused.
	grant := func(err error) string { return c.grantPublish(messages[published].Channel, err) }
	err = c.nearHubs(ctx, c.hubs, grant, func(client *goredis.Client) error {
		for part := range parts(messages) {
			replies, err := client.Pipelined(ctx, func(p goredis.Pipeliner) error {
				for _, m := range part {
					p.Publish(ctx, m.Channel, m.Payload)
				}
				return nil
			})
			published += successes(replies)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return published, err
}

// AppendAll adds messages to a Redis stream in order, like PublishAll.
func (c *Commands) AppendAll(ctx context.Context, key string, messages []Message) (published int, err error) {
	for part := range parts(messages) {
		var replies []goredis.Cmder
		err := c.do(ctx, topology.Target{Key: key}, func(client *goredis.Client) error {
			var err error
			replies, err = client.Pipelined(ctx, func(p goredis.Pipeliner) error {
				for _, m := range part {
					p.XAdd(ctx, &goredis.XAddArgs{Stream: key, Values: entryOf(m.Channel, m.Payload)})
				}
				return nil
			})
			return err
		})
		n := successes(replies)
		published += n
		// A node that redirects a command has not executed it, and does not execute those that follow it.
		if _, moved := c.server.Redirection(err, key, ""); moved {
			for _, m := range part[n:] {
				if _, err = c.Append(ctx, key, m.Channel, m.Payload); err != nil {
					return published, err
				}
				published++
			}
			continue
		}
		switch {
		case errors.Is(err, context.Canceled):
			return published, err
		case err != nil:
			return published, c.appendFault(err, key)
		}
	}
	return published, nil
}

// parts yields messages in parts that are sent together.
func parts(messages []Message) iter.Seq[[]Message] {
	return func(yield func([]Message) bool) {
		for len(messages) > 0 {
			n, bytes := 0, 0
			for n < min(maxPart, len(messages)) && bytes < maxPartBytes {
				bytes += len(messages[n].Channel) + len(messages[n].Payload)
				n++
			}
			if !yield(messages[:n]) {
				return
			}
			messages = messages[n:]
		}
	}
}

// successes returns how many replies come before the first error.
func successes(replies []goredis.Cmder) (n int) {
	for n < len(replies) && replies[n].Err() == nil {
		n++
	}
	return n
}
