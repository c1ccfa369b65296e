// Package redistest starts a real redis-server for a test, on loopback and on a free port, optionally with replicas,
// Sentinels or a cluster. A test can kill, restart and freeze it, as happens in production. At the end of the test,
// all processes are stopped.
package redistest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usercast/internal/need"
)

// patience is the timeout for a server to start or to reply. It is long because it only matters if a test fails.
const patience = 20 * time.Second

// The user of Do is separate, so that a test can change the password and the permissions of all other users.
const adminUser, adminPassword = "redistest", "redistest"

// Server is one redis-server process. Its methods fail the test if they cannot do their work. They are for one goroutine
// at a time.
type Server struct {
	tb      testing.TB
	port    int
	tlsPort int                    // 0: no TLS
	args    func(*Server) []string // its command line
	dir     string
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended
}

// Start starts a redis-server without persistence and waits until it responds. args are added to its command line, for
// example "--requirepass", "secret". With those of TLSFiles, it also has a port with TLS.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, func(s *Server) []string {
		if slices.Contains(args, "--tls-cert-file") && !slices.Contains(args, "--tls-port") {
			args = append(slices.Clone(args), "--tls-port", strconv.Itoa(s.chooseTLSPort()))
		}
		return append([]string{
			"--bind", "127.0.0.1", "--port", strconv.Itoa(s.port),
			"--dir", s.dir, "--save", "", "--appendonly", "no",
			"--repl-diskless-sync-delay", "0", // otherwise a replica waits for others
			"--user", adminUser, "on", ">" + adminPassword, "~*", "&*", "+@all",
		}, args...)
	})
}

// StartReplica starts a replica of a primary and waits until both report the replication.
func StartReplica(tb testing.TB, primary *Server, args ...string) *Server {
	tb.Helper()
	host, port := primary.HostPort()
	tls := slices.Contains(args, "--tls-replication")
	if tls {
		host, port, _ = net.SplitHostPort(primary.TLSAddr())
	}
	s := Start(tb, append([]string{"--replicaof", host, port}, args...)...)
	_, own := s.HostPort()
	if tls {
		own = strconv.Itoa(s.tlsPort)
	}
	s.Await("it follows its primary", func() bool {
		return strings.Contains(s.Do("info", "replication").(string), "master_link_status:up") &&
			slices.ContainsFunc(replicas(primary), func(r any) bool { return r.([]any)[1] == own })
	})
	return s
}

// replicas returns the replicas that are online: host, port and offset of each.
func replicas(primary *Server) []any {
	primary.tb.Helper()
	return primary.Do("role").([]any)[2].([]any) // the elements before are "master" and an offset
}

// Await waits until done returns true.
func (s *Server) Await(what string, done func() bool) {
	s.tb.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("timed out waiting for the redis-server on port %d until %s", s.port, what)
		}
	}
}

func start(tb testing.TB, args func(*Server) []string) *Server {
	tb.Helper()
	need.Program(tb, "redis-server")
	s := &Server{tb: tb, args: args, dir: tb.TempDir()}
	tb.Cleanup(func() {
		s.Kill()
		if tb.Failed() {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			tb.Logf("redis-server on port %d wrote:\n%s", s.port, log)
		}
	})
	// Another process can take the port between FreePort and the server's bind.
	for range 5 {
		s.port = FreePort(tb)
		if s.launch() == nil {
			return s
		}
	}
	tb.Fatalf("redis-server did not come up; its log is in %s", s.dir)
	return nil
}

// Addr returns the server's host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// TLSAddr returns the host:port of the port with TLS: the host name that is in the certificate of the kit.
func (s *Server) TLSAddr() string { return net.JoinHostPort("localhost", strconv.Itoa(s.tlsPort)) }

// chooseTLSPort returns the port with TLS, which stays the same after a restart.
func (s *Server) chooseTLSPort() int {
	if s.tlsPort == 0 {
		s.tlsPort = FreePort(s.tb)
	}
	return s.tlsPort
}

// HostPort returns Addr in two parts, as REPLICAOF needs it.
func (s *Server) HostPort() (host, port string) { return "127.0.0.1", strconv.Itoa(s.port) }

// URL returns the URL of the server for --redis.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Kill ends the process with SIGKILL, so that the kernel closes its connections. It has no effect on a server that is
// down.
func (s *Server) Kill() {
	s.tb.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // the process may have ended already
	<-s.exited
	s.cmd = nil
}

// Restart kills the process, starts another one on the same port, and waits until it responds. Settings made with CONFIG
// or ACL are lost.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	var err error
	// Another test that searches for a free port may briefly use this port.
	for range 5 {
		if err = s.launch(); err == nil {
			return
		}
	}
	s.tb.Fatalf("restart redis-server: %v", err)
}

// Freeze stops the process with SIGSTOP: the kernel still accepts connections and bytes, but the server does not respond.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw resumes a frozen process.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatalf("send %v to redis-server: %v", sig, err)
	}
}

// Do runs one command as an administrator, over a separate connection, and returns the reply.
func (s *Server) Do(args ...any) any {
	s.tb.Helper()
	reply, err := s.Try(args...)
	if err != nil {
		s.tb.Fatalf("redis command %v: %v", args, err)
	}
	return reply
}

// launch starts the process and returns when it responds or has ended.
func (s *Server) launch() error {
	s.tb.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
	before := s.timesReady()
	cmd := exec.Command("redis-server", s.args(s)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.tb.Fatalf("start redis-server: %v", err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.cmd, s.exited = cmd, exited

	deadline := time.Now().Add(patience)
	for {
		// A reply alone does not suffice: it may come from another process that has taken the port.
		if _, err = s.Try("ping"); err == nil && s.timesReady() > before {
			return nil
		}
		select {
		case <-exited:
			s.cmd = nil
			return fmt.Errorf("redis-server ended immediately, see its log: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("redis-server on port %d does not respond: %v", s.port, err)
		}
	}
}

// timesReady returns how often a process of this server has logged that it listens.
func (s *Server) timesReady() int {
	log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	return strings.Count(string(log), "Ready to accept connections") + strings.Count(string(log), "Sentinel ID is")
}

var triedPorts sync.Map // by FreePort

// FreePort returns an unused loopback TCP port below the range of the kernel for outgoing connections. Otherwise such a
// connection could use the port of a server that is briefly down, or a dial to the port could connect to itself. It returns
// no port twice: a hub that still dials a server that was killed must not reach that of another test.
func FreePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := 10000 + rand.IntN(22000)
		if _, tried := triedPorts.LoadOrStore(port, true); tried {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	tb.Fatal("no free port on 127.0.0.1 between 10000 and 32000")
	return 0
}
