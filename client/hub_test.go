package client_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// patience only bounds a test that fails anyway.
const patience = 30 * time.Second

// A hub is the real program in a process of its own, before a real Redis.
type hub struct {
	program string
	redis   *redistest.Server
	flags   []string
	listen  string // host:port, of each process after the other
	admin   string
	cmd     *exec.Cmd
	exited  chan struct{}
}

// buildHub builds the program. What the race detector's run of the tests has compiled
// already is not compiled again without it.
func buildHub(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "usercast")
	args := []string{"build", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "usercast/cmd/usercast")...).CombinedOutput(); err != nil {
		t.Fatalf("build the hub: %v\n%s", err, out)
	}
	return program
}

func startHub(t *testing.T, program string, flags ...string) *hub {
	t.Helper()
	h := &hub{program: program, redis: redistest.Start(t), flags: flags, listen: fmt.Sprintf("127.0.0.1:%d", redistest.FreePort(t))}
	t.Cleanup(h.kill)
	h.start(t)
	return h
}

var listening = regexp.MustCompile(`msg=listening public=\S+ admin=(\S+)`)

// start starts a process, and waits until it is ready.
func (h *hub) start(t *testing.T) {
	t.Helper()
	h.cmd = exec.Command(h.program, append([]string{
		"serve", "--redis", h.redis.URL(), "--listen", h.listen, "--admin-listen", "127.0.0.1:0", "--auth", "insecure", "--retry", "200ms",
	}, h.flags...)...)
	h.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, "USERCAST_") }), "GORACE=atexit_sleep_ms=0")
	var log output
	h.cmd.Stderr = &log
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = h.cmd.Wait()
		close(exited)
	}()
	h.exited = exited
	await(t, "the hub is ready", func() bool {
		m := listening.FindStringSubmatch(log.String())
		if m == nil {
			select {
			case <-exited:
				t.Fatalf("the hub ended: %s", log.String())
			default:
			}
			return false
		}
		h.admin = m[1]
		answer, err := http.Get("http://" + h.admin + "/readyz")
		if err != nil {
			return false
		}
		answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

func (h *hub) kill() {
	_ = h.cmd.Process.Kill() // it may have ended
	<-h.exited
}

// streams are the open ones of a user.
func (h *hub) streams(t *testing.T, user string) int {
	t.Helper()
	var answer struct{ Streams []struct{} }
	if err := json.Unmarshal(h.ask(t, "/api/users/"+user), &answer); err != nil {
		t.Fatal(err)
	}
	return len(answer.Streams)
}

func (h *hub) ask(t *testing.T, path string) []byte {
	t.Helper()
	answer, err := http.Get("http://" + h.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("the hub answers %s to %s: %s, %v", answer.Status, path, body, err)
	}
	return body
}

// publish publishes one message.
func (h *hub) publish(channel, payload string) { h.redis.Do("publish", channel, payload) }

// await waits until done says so.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// output is what a process wrote.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}
