package check

import (
	"context"

	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/transport/redis"
	"usercast/transport/redis/inspect"
)

// inspectRedis reports whether a Redis server is suitable for a hub.
func inspectRedis(ctx context.Context, c *app.HubConfig, server *redis.Server, report finding.Report) {
	i := inspect.Inspection{Server: server, ChannelPrefix: c.ChannelPrefix, TopicSeparator: c.TopicSeparator.T, ControlChannel: c.ControlChannelName(), MaxPayload: c.MaxPayload.T}
	if c.Feed == app.FeedStream {
		i.StreamKey = c.StreamKey
	}
	i.Run(ctx, report)
}
