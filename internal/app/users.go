package app

import (
	"context"
	"log/slog"

	"usercast/transport/admin"
	"usercast/transport/redis"
)

// obey carries out an order that a hub heard, perhaps one of its own.
func (a *App) obey(order redis.Control) {
	if a.parts.Auth.Forget != nil {
		a.parts.Auth.Forget(order.User) // first: who comes back is asked anew
	}
	n := a.hub.Disconnect(order.User)
	a.log.Info("streams disconnected by order", slog.Int("streams", n))
}

// users is what the admin listener can do with one user. With several Redis it
// speaks to the first: every hub hears them all.
func (a *App) users() admin.Users {
	return admin.Users{
		Streams: func(user string) []admin.Stream {
			streams := []admin.Stream{}
			for _, c := range a.hub.ClientsOf(user) {
				s := c.State()
				streams = append(streams, admin.Stream{
					Since: c.Since(), Topics: c.Topics(),
					QueuedFrames: s.QueuedFrames, QueuedBytes: s.QueuedBytes, LastID: s.LastID.String(),
				})
			}
			return streams
		},
		Disconnect: func(ctx context.Context, user string) (admin.Receipt, error) {
			order := redis.Control{Op: redis.OpDisconnect, User: user}
			if a.cfg.Feed == FeedStream {
				id, err := a.orders.AppendOrder(ctx, a.cfg.StreamKey, order)
				return admin.Receipt{ID: id}, err
			}
			heard, err := a.orders.Order(ctx, a.cfg.ControlChannelName(), order)
			return admin.Receipt{Heard: &heard}, err
		},
		Publish: func(ctx context.Context, user, topic, payload string) (admin.Receipt, error) {
			channel, err := redis.Channel(a.cfg.ChannelPrefix, user, topic)
			if err != nil {
				return admin.Receipt{}, err
			}
			if a.cfg.Feed == FeedStream {
				id, err := a.orders.Append(ctx, a.cfg.StreamKey, channel, payload)
				return admin.Receipt{ID: id}, err
			}
			heard, err := a.orders.Publish(ctx, channel, payload)
			return admin.Receipt{Heard: &heard}, err
		},
		MaxPayload: int64(a.cfg.MaxPayload.T),
	}
}
