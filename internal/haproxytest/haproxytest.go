// Package haproxytest runs a real haproxy for a test, on loopback and on a free port. The process ends with the
// test.
package haproxytest

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"usercast/internal/proxytest"
)

// patience is the timeout for all operations. It is long because it only matters to a test that fails.
const patience = 30 * time.Second

// ServerHeader is set in each response of a server, to its name.
const ServerHeader = "X-Haproxy-Server"

// Proxy is one haproxy process. Its methods fail the test on an error. Only one goroutine may use it at a
// time.
type Proxy struct {
	tb          testing.TB
	addr, stats string // host:port, and a socket's path
}

// Config contains the sections of the configuration.
type Config struct {
	Defaults string // lines of the section defaults
	Backend  string // lines of the only backend
	MaxConn  int    // each connection uses two file descriptors
}

// Start starts a haproxy and waits until it accepts connections.
func Start(tb testing.TB, c Config) *Proxy {
	tb.Helper()
	// The path of a socket has at most 107 characters, and that of a test's directory may be longer.
	dir, err := os.MkdirTemp("", "haproxy")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &Proxy{tb: tb, stats: filepath.Join(dir, "stats")}
	p.addr = proxytest.HAProxy(tb, fmt.Sprintf(`
global
    maxconn %d
    stats socket %s level user
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
`, c.MaxConn, p.stats, c.Defaults, proxytest.Listen, ServerHeader, c.Backend))
	return p
}

// Addr is the proxy's host:port.
func (p *Proxy) Addr() string { return p.addr }

// AwaitUp waits until the proxy's health checks consider a server up.
func (p *Proxy) AwaitUp(server string) {
	p.tb.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		state, err := p.state(server)
		switch {
		case errors.Is(err, fs.ErrNotExist) && time.Now().Before(deadline): // HAProxy renames the socket last
		case err != nil:
			p.tb.Fatalf("read the state of %s: %v", server, err)
		case state == "UP":
			return
		case time.Now().After(deadline):
			p.tb.Fatalf("%s is %s, want UP", server, state)
		}
	}
}

// state returns "UP" or "DOWN", with a count during a transition.
func (p *Proxy) state(server string) (string, error) {
	conn, err := net.Dial("unix", p.stats)
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
	return "", errors.New("its statistics do not contain the server")
}
