package app

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
	"usercast/transport/redis"
)

// A position is not given out before the first subscription, and not after one that ended while the request waited for
// its first marker.
func TestPositionNeedsASubscription(t *testing.T) {
	t.Parallel()
	subscribed := redis.Stats{Feed: FeedPubSub, Connected: true, Generation: 1}
	for name, test := range map[string]struct {
		first, later redis.Stats
		err          error
		wait         time.Duration
	}{
		"no subscription":                {redis.Stats{Feed: FeedPubSub}, redis.Stats{Feed: FeedPubSub}, errNotSubscribed, 0},
		"one that is being opened":       {redis.Stats{Feed: FeedPubSub, Connected: true}, subscribed, nil, markerTimeout},
		"one without a marker":           {subscribed, subscribed, nil, markerTimeout},
		"one that ends without a marker": {subscribed, redis.Stats{Feed: FeedPubSub, Generation: 1}, errNotSubscribed, markerPoll},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				p := position{hub: hub.NewPubSub(hub.Config{}).Hub, feeds: func() []redis.Stats {
					if time.Now().Equal(start) {
						return []redis.Stats{test.first}
					}
					return []redis.Stats{test.later}
				}}
				id, err := p.get(t.Context(), "42")
				if !errors.Is(err, test.err) || (id == "") != (test.err != nil) || time.Since(start) != test.wait {
					t.Errorf("%q, %v after %v; want %v after %v", id, err, time.Since(start), test.err, test.wait)
				}
			})
		})
	}
}
