// Package systemd tells the service manager how the process is (sd_notify(3)).
package systemd

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A Manager is what started the process. It is safe for concurrent use.
type Manager struct {
	log *slog.Logger

	mu       sync.Mutex
	status   string // guarded by mu: what was said last
	failed   bool   // guarded by mu: a failure is logged once
	ready    bool   // guarded by mu: before, and when stopping, there is no reloading to tell of
	stopping bool   // guarded by mu
}

// New returns the manager that the environment names; nil: there is none.
func New(log *slog.Logger) *Manager {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	return &Manager{log: log}
}

// tell sends one message. m.mu is held.
func (m *Manager) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil && !m.failed {
		m.failed = true
		m.log.Warn("the service manager cannot be told how the hub is", slog.Any("error", err))
	}
}

// Ready says that what the process is there for is there.
func (m *Manager) Ready() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopping {
		m.ready = true
		m.tell(daemon.SdNotifyReady)
	}
}

// Reloading says that settings are being read anew, until Reloaded is called. The time tells
// systemd 253 and later (Type=notify-reload) that it is the answer to its signal.
func (m *Manager) Reloading() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready && !m.stopping {
		m.tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	}
}

// Reloaded ends what Reloading has begun.
func (m *Manager) Reloaded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready && !m.stopping {
		m.tell(daemon.SdNotifyReady)
	}
}

// Stopping says that the process is about to end, and for how long that may take at most:
// more than TimeoutStopSec= counts.
func (m *Manager) Stopping(within time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	m.tell(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, within.Microseconds()))
}

// Status says in words how the process is, for systemctl status.
func (m *Manager) Status(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text != m.status {
		m.status = text
		m.tell("STATUS=" + text)
	}
}

// Alive says that the process does its work: due again within Watchdog.
func (m *Manager) Alive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tell(daemon.SdNotifyWatchdog)
}

// Watchdog is WatchdogSec= of the unit; 0: nobody watches.
func (m *Manager) Watchdog() time.Duration {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("the service manager's watchdog cannot be understood", slog.Any("error", err))
	}
	return interval
}
