package hubtest

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// A Program is a process. It is killed when the test ends.
type Program struct {
	Cmd            *exec.Cmd
	Stdout, Stderr Output
	Exited         chan struct{} // closed when the process has ended
}

// StartProgram starts usercast. Env is NAME=value.
func StartProgram(tb testing.TB, env []string, args ...string) *Program {
	tb.Helper()
	return StartProcess(tb, env, Build(tb), args...)
}

// StartProcess starts any program.
func StartProcess(tb testing.TB, env []string, name string, args ...string) *Program {
	tb.Helper()
	p := &Program{Cmd: Command(env, name, args...), Exited: make(chan struct{})}
	p.Cmd.Stdout, p.Cmd.Stderr = &p.Stdout, &p.Stderr
	if err := p.Cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	go func() {
		defer close(p.Exited)
		_ = p.Cmd.Wait() // the result is in ProcessState
	}()
	tb.Cleanup(func() {
		p.Signal(syscall.SIGKILL)
		<-p.Exited
		if tb.Failed() {
			tb.Logf("%v wrote to stdout:\n%s\nto stderr:\n%s", args, p.Stdout.tail(), p.Stderr.tail())
		}
	})
	return p
}

// Command returns a command with the environment of this process and env, but without other USERCAST_ variables.
func Command(env []string, name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "USERCAST_") {
			cmd.Env = append(cmd.Env, e)
		}
	}
	// With the race detector, a program would sleep for a second before it exits.
	cmd.Env = append(append(cmd.Env, "GORACE=atexit_sleep_ms=0"), env...)
	return cmd
}

// Signal sends a signal. It does nothing if the process has ended.
func (p *Program) Signal(sig os.Signal) { _ = p.Cmd.Process.Signal(sig) }

// Wait waits for the end, and returns the exit status.
func (p *Program) Wait(tb testing.TB) int {
	tb.Helper()
	select {
	case <-p.Exited:
		return p.Cmd.ProcessState.ExitCode()
	case <-time.After(Patience):
		tb.Fatal("the program does not exit")
		return -1
	}
}

// Serve starts usercast serve on free ports and waits until it is ready. It returns the addresses of the listeners. The
// default of --auth is insecure.
func Serve(tb testing.TB, server *redistest.Server, env []string, flags ...string) (p *Program, public, admin string) {
	tb.Helper()
	p = StartProgram(tb, env, serveArgs(server.URL(), flags)...)
	public, admin = p.Addresses(tb)
	AwaitReady(tb, admin) // the public listener may use TLS
	return p, public, admin
}

func serveArgs(redis string, flags []string) []string {
	return append([]string{"serve", "--auth", "insecure", "--redis", redis, "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, flags...)
}

// Listening matches the log line with the addresses of both listeners.
var Listening = regexp.MustCompile(`msg=listening public=(\S+) admin=(\S+)`)

// Addresses waits until the log contains the addresses of the listeners.
func (p *Program) Addresses(tb testing.TB) (public, admin string) {
	tb.Helper()
	Eventually(tb, "the program listens", func() bool {
		if m := Listening.FindStringSubmatch(p.Stderr.String()); m != nil {
			public, admin = m[1], m[2]
		}
		select {
		case <-p.Exited:
			tb.Fatalf("the program ended: %s", &p.Stderr)
		default:
		}
		return public != ""
	})
	return public, admin
}

// AwaitReady waits until a listener at host:port reports that the hub is ready.
func AwaitReady(tb testing.TB, addr string) {
	tb.Helper()
	Eventually(tb, "the hub is ready", func() bool {
		r, err := TryRequest("GET", "http://"+addr+"/readyz")
		return err == nil && r.Status == 200
	})
}

// RunCommand runs usercast to its end.
func RunCommand(tb testing.TB, args ...string) (code int, stdout, stderr string) {
	tb.Helper()
	p := StartProgram(tb, nil, args...)
	code = p.Wait(tb)
	return code, p.Stdout.String(), p.Stderr.String()
}
