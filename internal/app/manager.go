package app

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/dustin/go-humanize/english"

	"usercast/hub"
	"usercast/internal/systemd"
)

const (
	// subscribeTimeout is how long the service manager waits for the first
	// subscription: services that are started after the hub should find it ready. Without Redis
	// the hub is started anyway: pages can connect and receive a gap later. A
	// manager that gives up would end it.
	subscribeTimeout = 10 * time.Second

	// statusInterval is the time between two status lines of the service manager.
	statusInterval = 5 * time.Second
)

// A managerLink notifies the service manager of the state of the hub.
type managerLink struct {
	manager          *systemd.Manager
	subscribeTimeout time.Duration // 0: the default
	hub              *hub.Hub
	health           *health
}

// run notifies the manager until ctx is done.
func (m *managerLink) run(ctx context.Context) {
	interval := statusInterval
	if watchdog := m.manager.Watchdog(); watchdog > 0 {
		interval = min(interval, watchdog/3)
	}
	m.awaitSubscription(ctx)
	m.manager.Ready()
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		// This needs the lock of the hub, without which no message is routed and no stream
		// opened: if it is never free again, the watchdog of the manager ends the hub. An
		// outage of Redis is not reported: a restart would not help.
		text := m.statusText()
		m.manager.Alive()
		m.manager.Status(text)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// awaitSubscription returns when the hub is ready, or after subscribeTimeout.
func (m *managerLink) awaitSubscription(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(m.subscribeTimeout, subscribeTimeout))
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !m.health.status().Ready {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// statusText is the state of the hub for a line of systemctl status.
func (m *managerLink) statusText() string {
	n := m.hub.Stats()
	text := fmt.Sprintf("%s of %s", english.Plural(n.Clients, "stream", "streams"), english.Plural(n.Users, "user", "users"))
	for _, feed := range m.health.status().Feeds {
		if !feed.Connected {
			text += "; no link to Redis " + feed.Redis
		}
	}
	if m.health.draining.Load() {
		return "stopping, " + text
	}
	return text
}
