package doctest

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/need"
	"usercast/internal/redistest"
)

// patience is the timeout for all operations. It is long because it only matters to a test that fails.
const patience = 30 * time.Second

// A Session is the environment in which the commands of a page run: a shell per block with usercast in its PATH, and a
// separate Redis. It replaces the ports in pages by free ones. Everything ends with the test. Only one goroutine may
// use it.
type Session struct {
	Redis *redistest.Server

	tb     testing.TB
	dir    string
	env    []string
	ports  map[string]string // port in pages → real port
	hub    *process
	second *process // another hub
	app    *process
	last   *process // whose output is compared
	others []*process
}

// The ports that pages use.
const (
	publicPort  = "8080"
	adminPort   = "8081"
	secondPort  = "8090" // of the second hub
	secondAdmin = "8091"
	redisPort   = "6379"
	appPort     = "3000"
)

// NewSession starts a session in dir. Env is NAME=value.
func NewSession(tb testing.TB, dir string, env ...string) *Session {
	tb.Helper()
	program := hubtest.Build(tb)
	s := &Session{tb: tb, dir: dir, Redis: redistest.Start(tb), ports: make(map[string]string)}
	_, s.ports[redisPort] = s.Redis.HostPort()
	for _, port := range []string{publicPort, adminPort, secondPort, secondAdmin, appPort} {
		s.ports[port] = strconv.Itoa(redistest.FreePort(tb))
	}
	real := need.Program(tb, "redis-cli")
	need.Program(tb, "bash")
	need.Program(tb, "curl")
	bin := tb.TempDir()
	wrapper := fmt.Sprintf("#!/bin/sh\nexec %s -p %s \"$@\"\n", real, s.ports[redisPort])
	if err := os.WriteFile(filepath.Join(bin, "redis-cli"), []byte(wrapper), 0o700); err != nil {
		tb.Fatal(err)
	}
	path := os.Getenv("PATH")
	for _, e := range slices.Concat(os.Environ(), env) {
		switch name, value, _ := strings.Cut(e, "="); {
		case name == "PATH":
			path = value
		case !strings.HasPrefix(name, "USERCAST_"):
			s.env = append(s.env, e)
		}
	}
	s.env = append(s.env,
		"PATH="+bin+":"+filepath.Dir(program)+":"+path, "GORACE=atexit_sleep_ms=0",
		"USERCAST_LISTEN="+s.Addr(publicPort), "USERCAST_ADMIN_LISTEN="+s.Addr(adminPort), "USERCAST_REDIS="+s.Redis.URL(),
		"USERCAST_URL=http://"+s.Addr(publicPort)+"/events", "USERCAST_ADMIN=http://"+s.Addr(adminPort),
		"REDIS_URL="+s.Redis.URL(), "PORT="+s.ports[appPort],
	)
	tb.Cleanup(func() {
		for _, p := range append(s.others, s.hub, s.second, s.app) {
			p.stop()
		}
	})
	return s
}

// Addr returns the host:port that replaces a port of the pages.
func (s *Session) Addr(port string) string { return "127.0.0.1:" + s.ports[port] }

// ServeApp serves the app until the test ends, for pages whose blocks do not start it.
func (s *Session) ServeApp(app http.HandlerFunc) {
	s.tb.Helper()
	l, err := net.Listen("tcp", s.Addr(appPort))
	if err != nil {
		s.tb.Fatal(err)
	}
	server := &http.Server{Handler: app}
	go server.Serve(l)
	s.tb.Cleanup(func() { server.Close() })
}

// PublicURL returns the URL of the hub.
func (s *Session) PublicURL() string { return "http://" + s.Addr(publicPort) }

// FreezeHub stops the hub's process without ending it.
func (s *Session) FreezeHub() {
	s.tb.Helper()
	if err := syscall.Kill(-s.hub.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
		s.tb.Fatal(err)
	}
}

// KillHub kills the hub, which may be frozen. A later block can start another one.
func (s *Session) KillHub() { s.hub.stop() }

// AwaitApp waits until the app has printed a line with this text.
func (s *Session) AwaitApp(text string) {
	s.tb.Helper()
	s.await(Block{Text: text}, s.app, func() bool { return strings.Contains(s.app.text(), text) })
}

// AppOutput returns what the app has printed.
func (s *Session) AppOutput() string { return s.app.text() }

// AppURL returns the URL of the app.
func (s *Session) AppURL() string { return "http://" + s.Addr(appPort) }

var portInText = regexp.MustCompile(`(:|-p |PORT=)(8080|8081|8090|8091|6379|3000)\b`)

// here replaces the ports in a text by the real ones.
func (s *Session) here(text string) string {
	return portInText.ReplaceAllStringFunc(text, func(m string) string {
		return m[:len(m)-4] + s.ports[m[len(m)-4:]]
	})
}

// Do tests a block as its mark specifies. It fails the test on an error.
func (s *Session) Do(b Block) {
	s.tb.Helper()
	switch b.Mark {
	case "run":
		s.run(b, 0)
	case "run: hub":
		s.hub = s.serve(b, s.hub, adminPort)
	case "run: second hub":
		s.second = s.serve(b, s.second, secondAdmin)
	case "run: app":
		s.app.stop()
		s.app = s.start(b)
		s.last = s.app
		s.await(b, s.app, func() bool { return answers(s.AppURL()+"/", http.StatusOK) })
	case "run: background":
		s.last = s.start(b)
		s.others = append(s.others, s.last)
		s.await(b, s.last, func() bool { return s.last.text() != "" })
	case "output":
		s.compare(b, s.last)
	case "output: background":
		s.compare(b, s.others[len(s.others)-1])
	default:
		if status, err := strconv.Atoi(strings.TrimPrefix(b.Mark, "run: exit ")); err == nil {
			s.run(b, status)
			return
		}
		if !strings.HasPrefix(b.Mark, "run by: ") && !strings.HasPrefix(b.Mark, "not run: ") {
			s.tb.Errorf("line %d: %q is not a mark", b.Line, b.Mark)
		}
	}
}

// serve replaces a hub by the one that a block starts, and waits until it is ready.
func (s *Session) serve(b Block, previous *process, admin string) *process {
	s.tb.Helper()
	previous.stop()
	s.last = s.start(b)
	s.await(b, s.last, func() bool { return answers("http://"+s.Addr(admin)+"/readyz", http.StatusOK) })
	return s.last
}

// compare waits until the process has written the output that the block shows.
func (s *Session) compare(b Block, p *process) {
	s.tb.Helper()
	want := s.here(b.Text)
	for deadline := time.Now().Add(patience); !matches(p.text(), want); time.Sleep(5 * time.Millisecond) {
		if p.over() || time.Now().After(deadline) {
			s.tb.Fatalf("line %d: the output is\n%s\nthe page shows\n%s", b.Line, p.text(), want)
		}
	}
}

// run runs a block to its end.
func (s *Session) run(b Block, status int) {
	s.tb.Helper()
	p := s.start(b)
	s.last = p
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.stop()
		s.tb.Fatalf("line %d does not end:\n%s\nIt wrote:\n%s", b.Line, b.Text, p.text())
	}
	if got := p.cmd.ProcessState.ExitCode(); got != status {
		s.tb.Errorf("line %d: exit status %d, want %d:\n%s\nIt wrote:\n%s", b.Line, got, status, b.Text, p.text())
	}
}

// await waits until done returns true. The process must keep running.
func (s *Session) await(b Block, p *process, done func() bool) {
	s.tb.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if p.over() {
			s.tb.Fatalf("line %d ended:\n%s\nIt wrote:\n%s", b.Line, b.Text, p.text())
		}
		if time.Now().After(deadline) {
			s.tb.Fatalf("line %d, timeout:\n%s\nIt wrote:\n%s", b.Line, b.Text, p.text())
		}
	}
}

func answers(url string, status int) bool {
	answer, err := http.Get(url)
	if err != nil {
		return false
	}
	answer.Body.Close()
	return answer.StatusCode == status
}

// matches compares output with the text of a page, in which … matches any text. On a separate line, it matches any
// number of lines.
func matches(got, want string) bool {
	parts := strings.Split(strings.TrimRight(want, "\n"), "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	pattern := regexp.MustCompile(`(?s)^` + strings.Join(parts, ".*") + `\n*$`)
	return pattern.MatchString(got)
}

// A process is a shell and the processes that it has started.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

// Write collects the output of the process.
func (p *process) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *process) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.output.String(), "\r\n", "\n")
}

func (p *process) over() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

func (s *Session) start(b Block) *process {
	s.tb.Helper()
	p := &process{ended: make(chan struct{})}
	p.cmd = exec.Command("bash", "-euo", "pipefail", "-c", s.here(b.Text))
	p.cmd.Dir, p.cmd.Env = s.dir, slices.Clone(s.env)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		s.tb.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // the result is in ProcessState
	}()
	return p
}

// stop kills the shell and the processes that it has started. p may be nil.
func (p *process) stop() {
	if p == nil {
		return
	}
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		panic(err) // impossible: the process group belongs to this test
	}
	<-p.ended
}
