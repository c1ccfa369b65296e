package app

import (
	"context"
	"log/slog"

	"usercast/hub"
	"usercast/transport/admin"
	"usercast/transport/redis"
)

// handleControl executes a control command from Redis. Every hub receives it, including the one that sent it.
func (a *App) handleControl(command redis.Control) {
	if a.parts.Auth.Forget != nil {
		a.parts.Auth.Forget(command.User) // first, so that a client that reconnects is authenticated again
	}
	n := a.hub.Disconnect(command.User)
	a.log.Info("streams disconnected by control command", slog.Int("streams", n))
}

// api implements the operations of the admin API. With several Redis URLs it publishes to the first one, which is enough
// because every hub subscribes to all of them.
type api struct {
	cfg      *Config
	hub      *hub.Hub
	commands *redis.Commands
	redis    string // Name of the server of commands
	position *position
}

func (a api) admin() admin.API {
	return admin.API{
		Streams: a.streams, Disconnect: a.disconnect, Publish: a.publish, PublishAll: a.publishAll, Position: a.position.get,
		Groups: a.cfg.GroupPrefix != "", TopicSeparator: a.cfg.TopicSeparator.T, BroadcastUser: a.cfg.BroadcastUser,
		MaxPayload: int64(a.cfg.MaxPayload.T), Redis: a.redis,
	}
}

func (a api) streams(of hub.Recipient, limit int) (streams []admin.Stream, total int) {
	clients := a.hub.ClientsOf(of)
	streams = make([]admin.Stream, min(limit, len(clients)))
	for i := range streams {
		c := clients[i]
		s := c.State()
		streams[i] = admin.Stream{
			Since: c.Since(), Topics: c.Topics(), Groups: c.Groups(),
			QueuedFrames: s.QueuedFrames, QueuedBytes: s.QueuedBytes, LastID: string(a.hub.AppendID(nil, s.LastID)),
		}
		if of.Group {
			streams[i].User = c.User()
		}
	}
	return streams, len(clients)
}

func (a api) disconnect(ctx context.Context, user string) (admin.Receipt, error) {
	command := redis.Control{Op: redis.OpDisconnect, User: user}
	if a.cfg.Feed == FeedStream {
		id, err := a.commands.AppendControl(ctx, a.cfg.StreamKey, command)
		return admin.Receipt{ID: id}, err
	}
	subscribers, err := a.commands.PublishControl(ctx, a.cfg.ControlChannelName(), command)
	return admin.Receipt{Heard: &subscribers}, err
}

func (a api) publish(ctx context.Context, m admin.Publication) (admin.Receipt, error) {
	channel, err := a.cfg.Channels().Name(m.To, m.Topic)
	if err != nil {
		return admin.Receipt{}, err
	}
	if a.cfg.Feed == FeedStream {
		id, err := a.commands.Append(ctx, a.cfg.StreamKey, channel, m.Payload)
		return admin.Receipt{ID: id}, err
	}
	subscribers, err := a.commands.Publish(ctx, channel, m.Payload)
	return admin.Receipt{Heard: &subscribers}, err
}

func (a api) publishAll(ctx context.Context, publications []admin.Publication) (published int, err error) {
	messages := make([]redis.Message, len(publications))
	for i, p := range publications {
		channel, err := a.cfg.Channels().Name(p.To, p.Topic)
		if err != nil {
			return 0, err
		}
		messages[i] = redis.Message{Channel: channel, Payload: p.Payload}
	}
	if a.cfg.Feed == FeedStream {
		return a.commands.AppendAll(ctx, a.cfg.StreamKey, messages)
	}
	return a.commands.PublishAll(ctx, messages)
}
