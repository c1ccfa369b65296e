package clients

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// patience bounds waiting in a test that fails.
const patience = 30 * time.Second

// A hub is one process after the other, at one address, and a Redis.
type hub struct {
	program string
	flags   []string
	addr    string
	admin   string

	// Guarded by mu: Redis's methods are for one goroutine at a time.
	mu    sync.Mutex
	redis *redistest.Server
	log   string // of all processes

	cmd    *exec.Cmd
	exited chan struct{}
}

// programs are built once, and deleted by TestMain.
var programs struct {
	dir        string
	hub, goLib func() (string, error)
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		panic(err)
	}
	programs.dir = dir
	programs.hub = sync.OnceValues(func() (string, error) { return build(".", "usercast/cmd/usercast") })
	programs.goLib = sync.OnceValues(func() (string, error) { return build("testdata/go", "goclients") })
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// build builds a program. What the race detector's run of the tests has compiled already is not
// compiled again without it.
func build(dir, pkg string) (program string, err error) {
	program = filepath.Join(programs.dir, filepath.Base(pkg))
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, pkg)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return program, nil
}

// startHub starts a hub whose clients reconnect soon.
func startHub(tb testing.TB, flags ...string) *hub {
	tb.Helper()
	program, err := programs.hub()
	if err != nil {
		tb.Fatal(err)
	}
	h := &hub{program: program, flags: flags, redis: redistest.Start(tb), addr: freeAddr(tb), admin: freeAddr(tb)}
	tb.Cleanup(func() {
		h.end(syscall.SIGKILL)
		if tb.Failed() && testing.Verbose() {
			tb.Logf("the hub's log:\n%s", h.log)
		}
	})
	h.start(tb)
	return h
}

func freeAddr(tb testing.TB) string {
	tb.Helper()
	return fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(tb))
}

// start starts a process, and waits until it is ready.
func (h *hub) start(tb testing.TB) {
	tb.Helper()
	h.cmd = exec.Command(h.program, append([]string{
		"serve", "--redis", h.redis.URL(), "--listen", h.addr, "--admin-listen", h.admin, "--auth", "insecure", "--retry", "200ms",
	}, h.flags...)...)
	h.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "USERCAST_") }), "GORACE=atexit_sleep_ms=0")
	stderr, err := h.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	exited := make(chan struct{})
	h.exited = exited
	go func() {
		defer close(exited)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			h.mu.Lock()
			h.log += lines.Text() + "\n"
			h.mu.Unlock()
		}
		_ = h.cmd.Wait()
	}()
	if err := await("the hub is ready", func() bool {
		response, err := http.Get("http://" + h.admin + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	}); err != nil {
		h.mu.Lock()
		defer h.mu.Unlock()
		tb.Fatalf("%v; its log:\n%s", err, h.log)
	}
}

// end sends a signal to the process, and waits for its end.
func (h *hub) end(signal os.Signal) {
	if h.cmd == nil || h.cmd.Process == nil {
		return
	}
	_ = h.cmd.Process.Signal(signal) // it may have ended
	<-h.exited
	h.cmd = nil
}

// publish publishes a message through the hub's feed.
func (h *hub) publish(user, payload string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	args := []any{"publish", "user-" + user, payload}
	if slices.Contains(h.flags, "stream") {
		args = []any{"xadd", "usercast:log", "*", "ch", "user-" + user, "data", payload}
	}
	_, err := h.redis.Try(args...)
	return err
}

// occupy opens a stream of the user, and returns how to close it.
func (h *hub) occupy(user string) (release func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	err = await("the user's only stream is taken", func() bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.addr+"/events?user="+user, nil)
		if err != nil {
			return false
		}
		request.Header.Set("Accept", "text/event-stream")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		first, err := readBlock(response)
		if err != nil || strings.Contains(first, "event: busy") {
			response.Body.Close() // the stream before this one has not ended yet
			return false
		}
		return true
	})
	if err != nil {
		cancel()
		return nil, err
	}
	return cancel, nil
}

// readBlock reads up to the first blank line.
func readBlock(response *http.Response) (string, error) {
	body := bufio.NewReader(response.Body)
	var block string
	for {
		line, err := body.ReadString('\n')
		block += line
		if err != nil || line == "\n" {
			return block, err
		}
	}
}

var errTimeout = errors.New("timeout")

// await waits until done is true.
func await(what string, done func() bool) error {
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%w: waited %v until %s", errTimeout, patience, what)
		}
	}
	return nil
}
