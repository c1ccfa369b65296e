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

// A serviceManager is the socket on which systemd receives notifications from the program.
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

// receive returns the next message, or "" if none arrives within d.
func (m serviceManager) receive(d time.Duration) string {
	b := make([]byte, 4096)
	m.SetReadDeadline(time.Now().Add(d))
	n, _ := m.Read(b)
	return string(b[:n])
}

// want waits for a message, and fails if an unexpected one arrives before it.
func (m serviceManager) want(t *testing.T, begins string) {
	t.Helper()
	for {
		switch message := m.receive(hubtest.Patience); {
		case strings.HasPrefix(message, begins):
			return
		case message == "" || !strings.HasPrefix(message, "STATUS=") && !strings.HasPrefix(message, "WATCHDOG="):
			t.Fatalf("%q, want %q", message, begins)
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

	// An outage of Redis is reported, and does not stop the watchdog pings.
	server.Kill()
	m.want(t, "STATUS=1 stream of 1 user; not connected to Redis "+server.Addr())
	m.want(t, "WATCHDOG=1")

	// A stopped process sends no watchdog pings, so systemd would restart it.
	p.Signal(syscall.SIGSTOP)
	for m.receive(500*time.Millisecond) != "" { // messages sent before
	}
	p.Signal(syscall.SIGCONT)
	m.want(t, "WATCHDOG=1")

	p.Signal(syscall.SIGTERM)
	m.want(t, "STOPPING=1\nEXTEND_TIMEOUT_USEC=7100000") // delay, drain, write timeout, and 5 s
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Startup must not wait indefinitely for Redis, because systemd kills a service that does not become ready in time.
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
		p.SubscribeTimeout = 500 * time.Millisecond // shorter than in production, to keep the test fast
	})
	hubtest.Run(t, h)
	if message := m.receive(250 * time.Millisecond); message != "" {
		t.Errorf("received %q before the subscribe timeout", message)
	}
	m.want(t, "READY=1")
	m.want(t, "STATUS=0 streams of 0 users; not connected to Redis "+server.Addr())
	h.Interrupt()
	m.want(t, "STOPPING=1")
}
