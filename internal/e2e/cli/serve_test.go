package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestEnvironmentVariables(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p := hubtest.StartProgram(t, []string{
		"USERCAST_AUTH=insecure", "USERCAST_REDIS=" + server.URL(), "USERCAST_LISTEN=127.0.0.1:0", "USERCAST_ADMIN_LISTEN=127.0.0.1:0",
		"USERCAST_PATH=/stream", "USERCAST_CHANNEL_PREFIX=u-", "USERCAST_BROADCAST_USER=", "USERCAST_MAX_CLIENTS_PER_USER=1",
		"USERCAST_RETRY=7s", "USERCAST_ALLOW_ORIGIN=https://a.example,https://b.example", "USERCAST_LOG_LEVEL=debug",
	}, "serve", "--retry", "2s") // the command line takes precedence
	public, private := p.Addresses(t)
	hubtest.Eventually(t, "the program is ready", func() bool { return hubtest.Request(t, "GET", "http://"+public+"/readyz").Status == 200 })

	app := hubtest.NewPublisher(t, server.Addr())
	if n := app.Publish(t, "u-42", "hello"); n != 1 {
		t.Error("the prefix of the environment is ignored")
	}
	if a := hubtest.Request(t, "GET", "http://"+public+"/events?user=42"); a.Status != 404 {
		t.Errorf("the path of the environment is ignored: status %d", a.Status)
	}
	for _, origin := range []string{"https://a.example", "https://b.example"} {
		if a := hubtest.Request(t, "OPTIONS", "http://"+public+"/stream", "Origin: "+origin); a.Status != 204 {
			t.Errorf("origin %s: %d", origin, a.Status)
		}
	}
	app.Publish(t, "u-*", "without a subscriber")
	hubtest.Eventually(t, "the broadcast is counted", func() bool {
		return hubtest.Scrape(t, private).Sum("usercast_messages_unrouted_total") == 2
	})
	conn := hubtest.Dial(t, public)
	fmt.Fprintf(conn, "GET /stream?user=42 HTTP/1.0\r\n\r\n")
	seen := make([]byte, 0, 4096)
	for !bytes.Contains(seen, []byte("retry: ")) || !bytes.HasSuffix(seen, []byte("\n\n")) {
		n, err := conn.Read(seen[len(seen):cap(seen)])
		if err != nil {
			t.Fatalf("%q, %v", seen, err)
		}
		seen = seen[:len(seen)+n]
	}
	ms, _ := strconv.Atoi(regexp.MustCompile(`retry: (\d+)`).FindStringSubmatch(string(seen))[1])
	if ms < 1000 || ms > 3000 {
		t.Errorf("retry %d, want the command line's 2 s", ms)
	}
	if a := hubtest.Request(t, "GET", "http://"+public+"/stream?user=42"); a.Status != 429 {
		t.Errorf("a second stream of the user: %d", a.Status)
	}
	p.Signal(syscall.SIGINT)
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestInsecureOnAllInterfacesRequiresAFlag(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	p, _, _ := hubtest.Serve(t, server, nil, "--listen", "0.0.0.0:0", "--auth-insecure-anywhere")
	p.Signal(syscall.SIGINT)
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestSignals(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, test := range []struct {
		name    string
		drain   string
		signals []syscall.Signal
		code    int
	}{
		{"SIGTERM", "10ms", []syscall.Signal{syscall.SIGTERM}, 0},
		{"SIGINT does not wait", "1h", []syscall.Signal{syscall.SIGINT}, 0},
		{"a second SIGTERM does not wait", "1h", []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM}, 1},
		{"SIGINT after SIGTERM does not wait", "1h", []syscall.Signal{syscall.SIGTERM, syscall.SIGINT}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, public, _ := hubtest.Serve(t, server, nil, "--drain-delay", test.drain, "--drain", test.drain)
			stream, err := ssetest.Open(public, "user=42")
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()
			for i, sig := range test.signals {
				p.Signal(sig)
				if i < len(test.signals)-1 {
					hubtest.Eventually(t, "the program is stopping", func() bool { return len(p.Stderr.Lines("msg=stopping")) == 1 })
				}
			}
			if code := p.Wait(t); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if test.code == 0 {
				stream.WantEvent(t, "bye", `{"reason":"draining"}`)
				stream.WantEnd(t)
			} else if n := len(p.Stderr.Lines("usercast: received a second signal")); n != 1 {
				t.Errorf("%d log lines explain the immediate exit, want 1", n)
			}
		})
	}
}

func TestLogFormatJSON(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--log-format", "json")
	h.Open(t, "user=42").Close()
	hubtest.Eventually(t, "the stream's end is logged", func() bool { return len(h.Log.Lines("stream ended")) == 1 })
	for line := range strings.Lines(h.Log.String()) {
		var entry struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time == "" || entry.Level == "" || entry.Msg == "" {
			t.Errorf("the log holds %q: %v", line, err)
		}
	}
}

// With --auth insecure, any client can choose its user ID.
func TestLongUserIsTruncatedInTheLog(t *testing.T) {
	t.Parallel()
	h := hubtest.Start(t, redistest.Start(t))
	h.Open(t, "user="+strings.Repeat("u", 7000)).Close()
	hubtest.Eventually(t, "the stream's end is logged", func() bool { return len(h.Log.Lines("stream ended")) == 1 })
	if n := len(h.Log.Lines("stream ended")[0]); n > 500 {
		t.Errorf("a line of %d bytes", n)
	}
}

// The log says at startup if no value of --trusted-proxy can apply to the listener.
func TestTrustedProxyThatCannotMatch(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for name, test := range map[string]struct {
		listen, trusted string
		warns           bool
	}{
		"an address, Unix socket":    {"unix:SOCKET", "127.0.0.1", true},
		"a Unix socket, Unix socket": {"unix:SOCKET", "unix:", false},
		"a Unix socket, address":     {"127.0.0.1:0", "unix:", true},
		"an address, address":        {"127.0.0.1:0", "127.0.0.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, err := os.MkdirTemp("", "usercast") // the path of a socket must be short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			listen := strings.Replace(test.listen, "SOCKET", filepath.Join(dir, "s"), 1)
			p := hubtest.StartProgram(t, nil, "serve", "--redis", server.URL(), "--auth", "header", "--listen", listen, "--admin-listen", "127.0.0.1:0", "--trusted-proxy", test.trusted)
			hubtest.Eventually(t, "the program listens", func() bool { return len(p.Stderr.Lines("msg=listening")) == 1 })
			lines := p.Stderr.Lines("flag is ignored with this listener", "--trusted-proxy", "unix:")
			if (len(lines) == 1) != test.warns {
				t.Errorf("logged %q", lines)
			}
		})
	}
}
