package app

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize/english"
)

const (
	// subscribeTimeout is how long the service manager is kept waiting for the first
	// subscription: what is started after the hub should find it ready. Without Redis
	// the hub is up all the same: pages may connect and hear of the gap later, and a
	// manager that gives up would refuse them.
	subscribeTimeout = 10 * time.Second

	// statusEvery is how old what the manager shows may be.
	statusEvery = 5 * time.Second
)

// tellManager tells the service manager how the hub is, until ctx is done.
func (a *App) tellManager(ctx context.Context) {
	m := a.parts.Manager
	if m == nil {
		return
	}
	every := statusEvery
	if watchdog := m.Watchdog(); watchdog > 0 {
		every = min(every, watchdog/3)
	}
	a.awaitSubscription(ctx)
	m.Ready()
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		// This needs the lock of the hub, without which no message is routed and no stream
		// opened: should it never be free again, the manager hears nothing any more. An
		// outage of Redis is none of its business: a restart would not help.
		words := a.inWords()
		m.Alive()
		m.Status(words)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// awaitSubscription returns when the hub is ready, or after subscribeTimeout.
func (a *App) awaitSubscription(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(a.parts.SubscribeTimeout, subscribeTimeout))
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !a.status().Ready {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// inWords is the state of the hub for a line of systemctl status.
func (a *App) inWords() string {
	n := a.hub.Stats()
	text := fmt.Sprintf("%s of %s", english.Plural(n.Clients, "stream", "streams"), english.Plural(n.Users, "user", "users"))
	for _, feed := range a.status().Feeds {
		if !feed.Connected {
			text += "; no link to Redis " + feed.Redis
		}
	}
	if a.draining.Load() {
		return "stopping, " + text
	}
	return text
}
