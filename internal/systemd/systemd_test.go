//go:build unix

package systemd

import (
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// manager returns a Manager and a function that returns its next message.
func manager(t *testing.T) (m *Manager, next func() string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return New(slog.New(slog.DiscardHandler)), func() string {
		t.Helper()
		b := make([]byte, 4096)
		socket.SetReadDeadline(time.Now().Add(20 * time.Second))
		n, err := socket.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
}

func TestMessages(t *testing.T) {
	m, next := manager(t)
	// Reloads are not reported before Ready, and only the status is reported after Stopping.
	m.Reloading()
	m.Reloaded()
	m.Status("5 streams")
	m.Status("5 streams") // not sent again
	m.Ready()
	m.Reloading()
	m.Reloaded()
	m.Alive()
	m.Stopping(40 * time.Second)
	m.Reloading()
	m.Reloaded()
	m.Ready()
	m.Status("stopping")
	for _, want := range []string{
		`^STATUS=5 streams$`, `^READY=1$`, `^RELOADING=1\nMONOTONIC_USEC=[1-9]\d*\n$`, `^READY=1$`, `^WATCHDOG=1$`,
		`^STOPPING=1\nEXTEND_TIMEOUT_USEC=40000000$`, `^STATUS=stopping$`,
	} {
		if got := next(); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%q, want %s", got, want)
		}
	}
}

func TestNewWithoutNotifySocketReturnsNil(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if New(nil) != nil {
		t.Error("not nil")
	}
}

func TestFailedNotificationsAreLoggedOnce(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "missing"))
	var log bytes.Buffer
	m := New(slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		m.Ready()
		m.Alive()
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d lines, want 1:\n%s", n, &log)
	}
}

func TestWatchdog(t *testing.T) {
	m, _ := manager(t)
	for value, want := range map[string]time.Duration{"": 0, "30000000": 30 * time.Second, "often": 0} {
		t.Setenv("WATCHDOG_USEC", value)
		if got := m.Watchdog(); got != want {
			t.Errorf("WATCHDOG_USEC=%q: %v, want %v", value, got, want)
		}
	}
	t.Setenv("WATCHDOG_USEC", "30000000")
	t.Setenv("WATCHDOG_PID", "1") // another process
	if got := m.Watchdog(); got != 0 {
		t.Errorf("watchdog of another process: %v, want 0", got)
	}
}
