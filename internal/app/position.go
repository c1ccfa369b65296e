package app

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"usercast/hub"
	"usercast/transport/redis"
)

const (
	markerTimeout = time.Second           // how long a position waits for the first marker of a generation
	markerPoll    = 10 * time.Millisecond // time between two checks; the hub writes a marker as soon as it is subscribed
)

// A position provides positions for pages that an app renders.
type position struct {
	hub   *hub.Hub
	feeds func() []redis.Stats
	// unmarked is the newest generation in which a request waited in vain, so that a hub that never receives a marker,
	// because no hub may publish, does not delay every page.
	unmarked atomic.Uint64
}

var (
	errNotSubscribed = errors.New("the hub is not connected to Redis; retry later")
	errNotLoaded     = errors.New("the hub has not yet loaded the Redis stream; retry later")
)

// get returns the user's position. It waits for the first marker of the subscription, because other hubs do not know an
// earlier position. Hubs with several Redis URLs write no markers.
func (p *position) get(ctx context.Context, user string) (id string, err error) {
	feeds := p.feeds()
	generation, connected := uint64(0), false
	for _, f := range feeds {
		generation, connected = generation+f.Generation, connected || f.Connected
	}
	if !connected {
		return "", errNotSubscribed
	}
	id, known := p.hub.Position(user)
	switch {
	case known:
		return id, nil
	case feeds[0].Feed == FeedStream:
		return "", errNotLoaded
	case len(feeds) > 1 || p.unmarked.Load() >= generation:
		return id, nil
	}
	timeout := time.NewTimer(markerTimeout)
	defer timeout.Stop()
	poll := time.NewTicker(markerPoll)
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-timeout.C:
			p.unmarked.Store(generation)
			return id, nil
		case <-poll.C:
		}
		if id, known = p.hub.Position(user); known {
			return id, nil
		}
	}
}
