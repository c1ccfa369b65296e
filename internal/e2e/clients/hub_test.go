package clients

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// A hub is a sequence of hub processes with the same address, and a Redis server.
type hub struct {
	*hubtest.Instance
	mu sync.Mutex // held while publishing, because the methods of Redis are not safe for concurrent use
}

// startHub starts a hub with a short reconnection delay for clients.
func startHub(tb testing.TB, flags ...string) *hub {
	tb.Helper()
	return &hub{Instance: hubtest.StartInstance(tb, redistest.Start(tb), append([]string{"--retry", "200ms"}, flags...)...)}
}

// buildGoClients builds the program with the Go libraries once. TestMain sets it.
var buildGoClients func() (string, error)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "clients")
	if err != nil {
		panic(err)
	}
	buildGoClients = sync.OnceValues(func() (string, error) {
		program := filepath.Join(dir, "goclients")
		cmd := exec.Command("go", "build", "-o", program, "goclients")
		cmd.Dir = "testdata/go"
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build goclients: %w\n%s", err, out)
		}
		return program, nil
	})
	status := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(status)
}

// publish publishes a message with the hub's feed.
func (h *hub) publish(user, payload string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	args := []any{"publish", "user-" + user, payload}
	if slices.Contains(h.Flags, "stream") {
		args = []any{"xadd", "usercast:log", "*", "ch", "user-" + user, "data", payload}
	}
	_, err := h.Redis.Try(args...)
	return err
}

// occupy opens a stream of the user, and returns a function that closes it.
func (h *hub) occupy(user string) (release func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	err = await("the user's only stream is open", func() bool {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+h.Public+"/events?user="+user, nil)
		if err != nil {
			return false
		}
		request.Header.Set("Accept", "text/event-stream")
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return false
		}
		if first, _, err := ssetest.Of(response).Block(); err != nil || first.Type == "busy" {
			response.Body.Close() // the previous stream has not ended yet
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

var errTimeout = errors.New("timeout")

// await waits until done returns true.
func await(what string, done func() bool) error {
	for start := time.Now(); !done(); time.Sleep(hubtest.PollInterval(time.Since(start))) {
		if time.Since(start) > hubtest.Patience {
			return fmt.Errorf("%w: waited %v until %s", errTimeout, hubtest.Patience, what)
		}
	}
	return nil
}
