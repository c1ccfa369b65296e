package app

import (
	"cmp"
	"context"

	"usercast/hub"
	"usercast/transport/redis"
)

// A feed brings messages from one Redis.
type feed interface {
	Run(ctx context.Context) error
	Stats() redis.Stats
}

// newFeed connects a Redis to the hub.
func (a *App) newFeed(server *redis.Server) (feed, error) {
	if a.cfg.Feed != FeedStream {
		return redis.NewPubSub(redis.PubSubConfig{
			Server:         server,
			Hub:            a.pubSub,
			Streams:        a.streams,
			ChannelPrefix:  a.cfg.ChannelPrefix,
			ControlChannel: a.cfg.ControlChannelName(),
			MaxPayload:     a.cfg.MaxPayload.T,
			Control:        a.handleControl,
			Logger:         a.log,
		})
	}
	var err error
	a.stream, err = redis.NewStreamFeed(redis.StreamConfig{
		Server:        server,
		Hub:           a.streamFeed,
		Streams:       a.streams,
		Key:           a.cfg.StreamKey,
		ChannelPrefix: a.cfg.ChannelPrefix,
		MaxPayload:    a.cfg.MaxPayload.T,
		WindowBytes:   cmp.Or(int64(a.cfg.HistoryBytes.T), hub.Off),
		Control:       a.handleControl,
		Logger:        a.log,
	})
	return a.stream, err
}
