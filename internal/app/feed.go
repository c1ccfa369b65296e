package app

import (
	"cmp"
	"context"
	"time"

	"usercast/hub"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// GapSpread is the maximum time over which a gap is sent to streams without other messages. It is short, so that pages do
// not show stale data for long.
const GapSpread = 3 * time.Second

// A feed receives messages from one Redis.
type feed interface {
	Run(ctx context.Context) error
	Stats() redis.Stats
}

// newHub creates the hub for the type of --feed, and returns a function that connects a Redis to it. With the stream feed,
// call that function only once.
func (a *App) newHub(limits Limits) (connect func(*redis.Server) (feed, error)) {
	cfg := hub.Config{
		Encode:            sse.EncodeEntry,
		BroadcastUser:     a.cfg.BroadcastUser,
		QueueFrames:       a.cfg.Queue.T,
		QueueBytes:        a.cfg.QueueBytes.T,
		QueueTotalBytes:   int64(a.cfg.QueueTotalBytes.T),
		MaxClients:        cmp.Or(limits.MaxClients, hub.NoLimit),
		MaxClientsPerUser: cmp.Or(limits.MaxClientsPerUser, hub.NoLimit),
		GapSpread:         GapSpread,
		HistoryPerUser:    cmp.Or(a.cfg.HistoryPerUser.T, hub.Off),
		HistoryAge:        cmp.Or(a.cfg.HistoryAge.T, hub.Off),
		HistoryBytes:      cmp.Or(int64(a.cfg.HistoryBytes.T), hub.Off),
	}
	// R21: an idle stream holds an id that is as old as its last ping, and 15 s are for the way to another hub.
	cfg.MarkerAge = a.cfg.HistoryAge.T + a.cfg.PingInterval.T + 15*time.Second
	if a.cfg.Feed != FeedStream {
		h := hub.NewPubSub(cfg)
		a.hub = h.Hub
		return func(server *redis.Server) (feed, error) { return a.newPubSub(h, server) }
	}
	var stream *redis.StreamFeed
	h := hub.NewStreamFeed(cfg, func(q *hub.Query) { stream.Query(q) })
	a.hub = h.Hub
	return func(server *redis.Server) (_ feed, err error) {
		stream, err = a.newStreamFeed(h, server)
		return stream, err
	}
}

func (a *App) newPubSub(h *hub.PubSub, server *redis.Server) (*redis.PubSub, error) {
	return redis.NewPubSub(redis.PubSubConfig{
		Server:         server,
		Hub:            h,
		Streams:        a.streams,
		Channels:       a.cfg.Channels(),
		ControlChannel: a.cfg.ControlChannelName(),
		MaxPayload:     a.cfg.MaxPayload.T,
		Control:        a.handleControl,
		Name:           a.cfg.hubName(),
		Version:        a.parts.Version,
		Load: func() (streams, users int) {
			s := a.hub.Stats()
			return s.Clients, s.Users
		},
		NoMarkers: len(a.parts.Redis) > 1,
		Logger:    a.log,
	})
}

func (a *App) newStreamFeed(h *hub.StreamFeed, server *redis.Server) (*redis.StreamFeed, error) {
	return redis.NewStreamFeed(redis.StreamConfig{
		Server:      server,
		Hub:         h,
		Streams:     a.streams,
		Key:         a.cfg.StreamKey,
		Channels:    a.cfg.Channels(),
		MaxPayload:  a.cfg.MaxPayload.T,
		WindowBytes: cmp.Or(int64(a.cfg.HistoryBytes.T), hub.Off),
		Control:     a.handleControl,
		Logger:      a.log,
	})
}
