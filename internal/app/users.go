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

// users implements the operations of the admin API on one user. With several Redis URLs it publishes to the first one,
// which is enough because every hub subscribes to all of them.
type users struct {
	cfg      *Config
	hub      *hub.Hub
	commands *redis.Commands
	redis    string // Name of the server of commands
}

func (u users) api() admin.Users {
	return admin.Users{Streams: u.streams, Disconnect: u.disconnect, Publish: u.publish, TopicSeparator: u.cfg.TopicSeparator.T, MaxPayload: int64(u.cfg.MaxPayload.T), Redis: u.redis}
}

func (u users) streams(user string) []admin.Stream {
	streams := []admin.Stream{}
	for _, c := range u.hub.ClientsOf(hub.User(user)) {
		s := c.State()
		streams = append(streams, admin.Stream{
			Since: c.Since(), Topics: c.Topics(),
			QueuedFrames: s.QueuedFrames, QueuedBytes: s.QueuedBytes, LastID: string(u.hub.AppendID(nil, s.LastID)),
		})
	}
	return streams
}

func (u users) disconnect(ctx context.Context, user string) (admin.Receipt, error) {
	command := redis.Control{Op: redis.OpDisconnect, User: user}
	if u.cfg.Feed == FeedStream {
		id, err := u.commands.AppendControl(ctx, u.cfg.StreamKey, command)
		return admin.Receipt{ID: id}, err
	}
	subscribers, err := u.commands.PublishControl(ctx, u.cfg.ControlChannelName(), command)
	return admin.Receipt{Heard: &subscribers}, err
}

func (u users) publish(ctx context.Context, user, topic, payload string) (admin.Receipt, error) {
	channel, err := u.cfg.Channels().Name(hub.User(user), topic)
	if err != nil {
		return admin.Receipt{}, err
	}
	if u.cfg.Feed == FeedStream {
		id, err := u.commands.Append(ctx, u.cfg.StreamKey, channel, payload)
		return admin.Receipt{ID: id}, err
	}
	subscribers, err := u.commands.Publish(ctx, channel, payload)
	return admin.Receipt{Heard: &subscribers}, err
}
