package app

import (
	"sync/atomic"

	"usercast/transport/admin"
	"usercast/transport/redis"
)

// health determines whether the hub is ready, for /readyz, the console and the service manager.
type health struct {
	feeds    func() []redis.Stats
	draining atomic.Bool
}

func (h *health) status() admin.Status {
	s := admin.Status{Ready: true}
	subscribed, marked := false, false
	for _, feed := range h.feeds() {
		s.Feeds = append(s.Feeds, admin.FeedLink{Feed: feed.Feed, Redis: feed.Redis, Connected: feed.Connected})
		if feed.Generation > 0 {
			subscribed, marked = true, marked || feed.Marked
		}
	}
	switch {
	case h.draining.Load():
		s.Ready, s.Why = false, "stopping"
	case !subscribed:
		s.Ready, s.Why = false, "not yet connected to Redis"
	case !marked: // pages that a load balancer moves here would receive a gap (R20)
		s.Ready, s.Why = false, "waiting for the first marker"
	}
	return s
}
