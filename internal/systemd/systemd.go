// Package systemd reports the state of the process to the service manager, with sd_notify(3).
package systemd

import (
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// A Manager sends notifications to the service manager. It is safe for concurrent use.
type Manager struct {
	log *slog.Logger

	mu       sync.Mutex
	status   string // guarded by mu: the last status that was sent
	failed   bool   // guarded by mu: a failure was logged
	ready    bool   // guarded by mu: READY was sent; a reload is reported only after that
	stopping bool   // guarded by mu: STOPPING was sent; readiness and reloads are no longer reported
}

// New returns a Manager for the socket in NOTIFY_SOCKET, or nil if that variable is not set.
func New(log *slog.Logger) *Manager {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	return &Manager{log: log}
}

// send sends one message. The caller holds m.mu.
func (m *Manager) send(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil && !m.failed {
		m.failed = true
		m.log.Warn("sd_notify failed, service manager gets no status", slog.Any("error", err))
	}
}

// Ready reports that the service is ready.
func (m *Manager) Ready() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.stopping {
		m.ready = true
		m.send(daemon.SdNotifyReady)
	}
}

// Reloading reports that a reload has started. Call Reloaded at its end. From the timestamp, systemd 253 and later
// (Type=notify-reload) recognizes the response to its signal.
func (m *Manager) Reloading() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready && !m.stopping {
		m.send(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
	}
}

// Reloaded reports the end of a reload.
func (m *Manager) Reloaded() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ready && !m.stopping {
		m.send(daemon.SdNotifyReady)
	}
}

// Stopping reports that the process is shutting down, which takes at most the given time. The time may exceed
// TimeoutStopSec=.
func (m *Manager) Stopping(within time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stopping = true
	m.send(fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d", daemon.SdNotifyStopping, within.Microseconds()))
}

// Status sets the status text that systemctl status shows. It sends nothing if the text is unchanged.
func (m *Manager) Status(text string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if text != m.status {
		m.status = text
		m.send("STATUS=" + text)
	}
}

// Alive sends a keep-alive. Call it again within the interval that Watchdog returns.
func (m *Manager) Alive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.send(daemon.SdNotifyWatchdog)
}

// Watchdog returns WatchdogSec= of the unit, or 0 if the watchdog is disabled.
func (m *Manager) Watchdog() time.Duration {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("invalid WATCHDOG_USEC or WATCHDOG_PID, watchdog disabled", slog.Any("error", err))
	}
	return interval
}
