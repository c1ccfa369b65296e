package check

import (
	"context"
	"sync"
	"time"

	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/transport/redis"
	"usercast/transport/redis/inspect"
)

// inspectRedis reports whether a Redis server is suitable for a hub. It returns the hubs there, or nil.
func inspectRedis(ctx context.Context, c *app.HubConfig, server *redis.Server, several, first bool, report finding.Report) *inspect.Fleet {
	i := inspection(c, server)
	i.NoMarkers, i.Presence = several, first && c.Presence
	return i.Run(ctx, report)
}

// observe reports what is published to the servers until a time has passed or ctx ends.
func observe(ctx context.Context, c *app.HubConfig, servers []*redis.Server, d time.Duration, p *printer) {
	observations := make([]*inspect.Observation, len(servers))
	var all sync.WaitGroup
	for n, server := range servers {
		all.Go(func() { observations[n] = inspection(c, server).Observe(ctx, d) })
	}
	all.Wait()
	for n, server := range servers {
		observations[n].Report(p.section("published to " + server.Name()))
	}
}

func inspection(c *app.HubConfig, server *redis.Server) inspect.Inspection {
	i := inspect.Inspection{Server: server, Channels: c.Channels(), BroadcastUser: c.BroadcastUser, ControlChannel: c.ControlChannelName(), MaxPayload: c.MaxPayload.T}
	if c.Feed == app.FeedStream {
		i.StreamKey = c.StreamKey
	}
	return i
}
