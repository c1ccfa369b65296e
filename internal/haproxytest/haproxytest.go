// Package haproxytest runs a real haproxy for a test, on loopback and on a free
// port. It is gone when the test ends.
package haproxytest

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// patience is how long the proxy may take for anything. It is long because it
// only bounds a test that fails anyway.
const patience = 30 * time.Second

// ServerHeader is set in each answer that came from a server: to its name.
const ServerHeader = "X-Haproxy-Server"

// Proxy is one haproxy process. Its methods fail the test when they cannot do
// what they say; they are for one goroutine at a time.
type Proxy struct {
	tb          testing.TB
	dir         string
	port, stats int
}

// Config is what the proxy does: the sections that a user would write.
type Config struct {
	Defaults string // lines of the section
	Backend  string // lines of the one backend
	MaxConn  int    // each connection takes two descriptors
}

// Start starts a haproxy and waits until it answers.
func Start(tb testing.TB, c Config) *Proxy {
	tb.Helper()
	p := &Proxy{tb: tb, dir: tb.TempDir()}
	tb.Cleanup(func() {
		if tb.Failed() {
			log, _ := os.ReadFile(p.file("log"))
			tb.Logf("haproxy said:\n%s", log[max(0, len(log)-4000):])
		}
	})
	// Another process can take a port between FreePort and the proxy's bind.
	for range 5 {
		p.port, p.stats = redistest.FreePort(tb), redistest.FreePort(tb)
		if p.launch(c) {
			return p
		}
	}
	tb.Fatal("haproxy did not come up")
	return nil
}

// Addr is the proxy's host:port.
func (p *Proxy) Addr() string { return loopback(p.port) }

// AwaitUp waits until the proxy's checks hold a server for good.
func (p *Proxy) AwaitUp(server string) {
	p.tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		state, err := p.state(server)
		switch {
		case err != nil:
			p.tb.Fatalf("ask haproxy for the state of %s: %v", server, err)
		case state == "UP":
			return
		case time.Now().After(deadline):
			p.tb.Fatalf("in vain waited until haproxy holds %s for UP; it is %s", server, state)
		}
	}
}

// state is "UP", "DOWN", or one of them with a count on the way to the other.
func (p *Proxy) state(server string) (string, error) {
	conn, err := net.Dial("tcp", loopback(p.stats))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return "", err
	}
	rows, err := csv.NewReader(conn).ReadAll()
	if err != nil || len(rows) == 0 {
		return "", fmt.Errorf("its statistics: %w", err)
	}
	name, status := slices.Index(rows[0], "svname"), slices.Index(rows[0], "status")
	if name < 0 || status < 0 {
		return "", fmt.Errorf("its statistics have the columns %q", rows[0])
	}
	for _, row := range rows {
		if row[name] == server {
			return row[status], nil
		}
	}
	return "", errors.New("it does not know the server")
}

// launch starts the process; false: it has ended.
func (p *Proxy) launch(c Config) bool {
	p.tb.Helper()
	config := fmt.Sprintf(`
global
    maxconn %d
    stats socket ipv4@%s level user
    log stdout format raw local0

defaults
%s
    log global
    option httplog
    option dontlog-normal

frontend web
    bind %s
    http-response set-header %s %%s
    default_backend servers

backend servers
%s
`, c.MaxConn, loopback(p.stats), c.Defaults, p.Addr(), ServerHeader, c.Backend)
	if err := os.WriteFile(p.file("haproxy.cfg"), []byte(config), 0o600); err != nil {
		p.tb.Fatal(err)
	}
	log, err := os.OpenFile(p.file("log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		p.tb.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(find(p.tb), "-db", "-f", p.file("haproxy.cfg"))
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.tb.Fatalf("start haproxy: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	p.tb.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		<-exited
	})
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		conn, err := net.Dial("tcp", loopback(p.stats))
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-exited:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	p.tb.Fatal("haproxy does not answer")
	return false
}

// find returns the path of haproxy: Debian's lies where only root looks.
func find(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	tb.Fatal("this test needs haproxy (2.6 or later) in PATH: apt-get install haproxy, or brew install haproxy; go test -short goes without")
	return ""
}

func (p *Proxy) file(name string) string { return filepath.Join(p.dir, name) }

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
