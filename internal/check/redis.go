package check

import (
	"context"

	"usercast/internal/advice"
	"usercast/internal/app"
	"usercast/transport/redis"
	"usercast/transport/redis/inspect"
)

// inspectRedis reports what a Redis lacks for a hub.
func inspectRedis(ctx context.Context, c *app.HubConfig, server *redis.Server, report advice.Tell) {
	i := inspect.Inspection{Server: server, ChannelPrefix: c.ChannelPrefix, ControlChannel: c.ControlChannelName(), MaxPayload: c.MaxPayload.T}
	if c.Feed == app.FeedStream {
		i.StreamKey = c.StreamKey
	}
	i.Run(ctx, report)
}
