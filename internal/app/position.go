package app

import (
	"cmp"
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
	timeout := time.NewTimer(markerTimeout)
	defer timeout.Stop()
	poll := time.NewTicker(markerPoll)
	defer poll.Stop()
	first := uint64(0) // generation in which the wait began
	for waited := false; ; {
		feeds := p.feeds()
		generation, connected := uint64(0), false
		for _, f := range feeds {
			generation, connected = generation+f.Generation, connected || f.Connected
		}
		if !connected { // or no longer
			return "", errNotSubscribed
		}
		first = cmp.Or(first, generation)
		id, known := p.hub.Position(user)
		switch {
		case known:
			return id, nil
		case feeds[0].Feed == FeedStream:
			return "", errNotLoaded
		case waited:
			p.unmarked.Store(first)
			return id, nil
		case len(feeds) > 1 || generation > 0 && p.unmarked.Load() >= generation: // 0: the first one is being opened
			return id, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-timeout.C:
			waited = true
		case <-poll.C:
		}
	}
}
