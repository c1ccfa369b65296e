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
	// subscribeTimeout limits how long readiness is delayed until the first subscription. Services that start after the
	// hub then usually find it ready. If Redis is unavailable, the hub reports readiness anyway, because the service
	// manager would otherwise end it after its start timeout. Pages can connect, and receive a gap later.
	subscribeTimeout = 10 * time.Second

	// statusInterval is the time between updates of the status text.
	statusInterval = 5 * time.Second
)

// A managerLink reports the state of the hub to the service manager.
type managerLink struct {
	manager          *systemd.Manager
	subscribeTimeout time.Duration // 0 means the default
	hub              *hub.Hub
	health           *health
}

// run reports the state until ctx is done.
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
		// statusText needs the lock of the hub, as do routing messages and opening streams. After a deadlock, no
		// keep-alive is sent, and the watchdog restarts the hub. An outage of Redis does not stop the keep-alives,
		// because a restart would not help.
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

// awaitSubscription waits until the hub is ready, but at most subscribeTimeout.
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

// statusText returns the state of the hub, for systemctl status.
func (m *managerLink) statusText() string {
	n := m.hub.Stats()
	text := fmt.Sprintf("%s of %s", english.Plural(n.Clients, "stream", "streams"), english.Plural(n.Users, "user", "users"))
	for _, feed := range m.health.status().Feeds {
		if !feed.Connected {
			text += "; not connected to Redis " + feed.Redis
		}
	}
	if m.health.draining.Load() {
		return "stopping, " + text
	}
	return text
}
