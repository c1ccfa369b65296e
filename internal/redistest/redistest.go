// Package redistest starts a real redis-server for a test, on loopback and on a
// free port, and does to it what production does: kills it, restarts it, freezes
// it, with replicas, Sentinels or a cluster if need be. All of it is gone when the
// test ends.
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
	"syscall"
	"testing"
	"time"

	"usercast/internal/need"
)

// patience is how long a server may take to come up or to answer. It is long
// because it only bounds a test that fails anyway.
const patience = 20 * time.Second

// The account that Do uses, so that a test may change the password and the
// rights of everyone else. Its name is no part of what is tested.
const adminUser, adminPassword = "redistest", "redistest"

// Server is one redis-server process. Its methods fail the test when they
// cannot do what they say; they are for one goroutine at a time.
type Server struct {
	tb     testing.TB
	port   int
	args   func(*Server) []string // its command line
	dir    string
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has been waited for
}

// Start starts a redis-server that keeps nothing on disk and waits until it
// answers. Args are added to its command line, e.g. "--requirepass", "secret".
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	return start(tb, func(s *Server) []string {
		return append([]string{
			"--bind", "127.0.0.1", "--port", strconv.Itoa(s.port),
			"--dir", s.dir, "--save", "", "--appendonly", "no",
			"--repl-diskless-sync-delay", "0", // else a replica waits for others
			"--user", adminUser, "on", ">" + adminPassword, "~*", "&*", "+@all",
		}, args...)
	})
}

// StartReplica starts a replica of a primary and waits until both know that it
// follows it.
func StartReplica(tb testing.TB, primary *Server, args ...string) *Server {
	tb.Helper()
	host, port := primary.HostPort()
	s := Start(tb, append([]string{"--replicaof", host, port}, args...)...)
	_, own := s.HostPort()
	s.Await("it follows its primary", func() bool {
		return strings.Contains(s.Do("info", "replication").(string), "master_link_status:up") &&
			slices.ContainsFunc(replicas(primary), func(r any) bool { return r.([]any)[1] == own })
	})
	return s
}

// replicas are those that are up to date: host, port and offset of each.
func replicas(primary *Server) []any {
	primary.tb.Helper()
	return primary.Do("role").([]any)[2].([]any) // after "master" and an offset
}

// Await waits until done says so.
func (s *Server) Await(what string, done func() bool) {
	s.tb.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.tb.Fatalf("in vain waited for the redis-server on port %d until %s", s.port, what)
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
			tb.Logf("redis-server on port %d said:\n%s", s.port, log)
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

// Addr is the server's host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// HostPort is Addr in two parts, as REPLICAOF takes it.
func (s *Server) HostPort() (host, port string) { return "127.0.0.1", strconv.Itoa(s.port) }

// URL is the server's address as --redis takes it.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Kill ends the process with SIGKILL, so that the kernel closes its connections.
// A server that is down already stays down.
func (s *Server) Kill() {
	s.tb.Helper()
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.exited
	s.cmd = nil
}

// Restart kills the process, starts another on the same port, and waits until
// it answers. What was set with CONFIG or ACL is gone.
func (s *Server) Restart() {
	s.tb.Helper()
	s.Kill()
	var err error
	// The port may be taken for a moment by somebody else's search for a free one.
	for range 5 {
		if err = s.launch(); err == nil {
			return
		}
	}
	s.tb.Fatalf("restart redis-server: %v", err)
}

// Freeze stops the process with SIGSTOP: the kernel still accepts connections
// and bytes for it, and nothing answers.
func (s *Server) Freeze() { s.signal(syscall.SIGSTOP) }

// Thaw lets a frozen process go on.
func (s *Server) Thaw() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatalf("send %v to redis-server: %v", sig, err)
	}
}

// Do runs one command as an administrator, over a connection of its own, and
// returns the reply.
func (s *Server) Do(args ...any) any {
	s.tb.Helper()
	reply, err := s.Try(args...)
	if err != nil {
		s.tb.Fatalf("redis command %v: %v", args, err)
	}
	return reply
}

// launch starts the process and returns once it answers, or has ended.
func (s *Server) launch() error {
	s.tb.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close()
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
		if _, err = s.Try("ping"); err == nil {
			return nil
		}
		select {
		case <-exited:
			s.cmd = nil
			return fmt.Errorf("redis-server ended at once, see its log: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("redis-server on port %d does not answer: %v", s.port, err)
		}
	}
}

// FreePort returns a loopback TCP port that nothing listens on. It lies below
// the range from which the kernel picks ports for outgoing connections: else
// such a connection could take the port of a server that is down for a moment,
// or a dial to it could even connect to itself.
func FreePort(tb testing.TB) int {
	tb.Helper()
	for range 100 {
		port := 10000 + rand.IntN(22000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	tb.Fatal("no free port on 127.0.0.1 between 10000 and 32000")
	return 0
}
