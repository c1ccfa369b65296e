//go:build unix

package faults

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
	"usercast/internal/systemd"
)

// A serviceManager is what systemd is to the program: a socket that it tells things.
type serviceManager struct{ *net.UnixConn }

func startManager(t *testing.T) (m serviceManager, env []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	return serviceManager{socket}, []string{"NOTIFY_SOCKET=" + path, "WATCHDOG_USEC=300000"}
}

// hears returns the next message, or "" when none comes within d.
func (m serviceManager) hears(d time.Duration) string {
	b := make([]byte, 4096)
	m.SetReadDeadline(time.Now().Add(d))
	n, _ := m.Read(b)
	return string(b[:n])
}

// want waits for a message, and reports whether an unwanted one came before.
func (m serviceManager) want(t *testing.T, begins string) {
	t.Helper()
	for {
		switch heard := m.hears(hubtest.Patience); {
		case strings.HasPrefix(heard, begins):
			return
		case heard == "" || !strings.HasPrefix(heard, "STATUS=") && !strings.HasPrefix(heard, "WATCHDOG="):
			t.Fatalf("%q, want %q", heard, begins)
		}
	}
}

func TestServiceManagerIsNotified(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program")
	}
	t.Parallel()
	m, env := startManager(t)
	server := redistest.Start(t)
	p, public, _ := hubtest.Serve(t, server, env, "--drain-delay", "100ms", "--drain", "0", "--write-timeout", "2s")
	m.want(t, "READY=1")
	page, err := ssetest.Open(public, "user=42")
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	m.want(t, "STATUS=1 stream of 1 user")
	m.want(t, "WATCHDOG=1")

	p.Signal(syscall.SIGHUP)
	m.want(t, "RELOADING=1\nMONOTONIC_USEC=")
	m.want(t, "READY=1")

	// An outage of Redis is said, and is no reason for a restart.
	server.Kill()
	m.want(t, "STATUS=1 stream of 1 user; not connected to Redis "+server.Addr())
	m.want(t, "WATCHDOG=1")

	// A process that does nothing says nothing: the watchdog's turn.
	p.Signal(syscall.SIGSTOP)
	for m.hears(500*time.Millisecond) != "" { // what was sent before
	}
	p.Signal(syscall.SIGCONT)
	m.want(t, "WATCHDOG=1")

	p.Signal(syscall.SIGTERM)
	m.want(t, "STOPPING=1\nEXTEND_TIMEOUT_USEC=7100000") // delay, drain, write timeout, and 5 s
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// A boot must not wait for a Redis that comes later: who keeps systemd waiting for too long
// is killed.
func TestServiceIsStartedWithoutRedis(t *testing.T) {
	m, env := startManager(t)
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		t.Setenv(name, value)
	}
	server := redistest.Start(t)
	server.Kill()
	h := hubtest.NewWith(t, server.URL(), func(p *app.Parts) {
		p.Manager = systemd.New(p.Logger)
		p.SubscribeTimeout = 500 * time.Millisecond // no test waits for the real one
	})
	hubtest.Run(t, h)
	if heard := m.hears(250 * time.Millisecond); heard != "" {
		t.Errorf("%q before there was time to subscribe", heard)
	}
	m.want(t, "READY=1")
	m.want(t, "STATUS=0 streams of 0 users; not connected to Redis "+server.Addr())
	h.Interrupt()
	m.want(t, "STOPPING=1")
}
