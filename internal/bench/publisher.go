package bench

import (
	"context"
	"fmt"

	"usercast/hub"
	"usercast/internal/app"
	"usercast/internal/load"
	"usercast/transport/redis"
)

// topic is the topic of all messages.
const topic = "bench"

// dial connects to Redis like an app.
func dial(ctx context.Context, c *Config, server *redis.Server) (load.Publisher, error) {
	key := ""
	if c.Feed == app.FeedStream {
		key = c.StreamKey
	}
	p, err := redis.NewPipeline(ctx, server, key, redis.ControlChannel(c.ChannelPrefix))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server.Name(), err)
	}
	return publisher{p, c, make(map[string]string)}, nil
}

// A publisher publishes to users like an app with the configured feed.
type publisher struct {
	*redis.Pipeline
	config   *Config
	channels map[string]string // key: user
}

func (p publisher) Publish(user string, payload []byte) error {
	channel, ok := p.channels[user]
	if !ok {
		var err error
		if channel, err = p.config.channels().Channels().Name(hub.User(user), topic); err != nil {
			return err
		}
		p.channels[user] = channel
	}
	if p.config.Feed == app.FeedStream {
		return p.Pipeline.Append(p.config.StreamKey, channel, payload)
	}
	return p.Pipeline.Publish(channel, payload)
}
