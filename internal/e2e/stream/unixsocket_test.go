package stream

import (
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/proxytest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// socketPath returns a path for a Unix socket in a directory that every user can enter: workers of proxies run as another
// user than the test.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "usercast")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "usercast.sock")
}

// proxiesOfSockets route /events to a Unix socket, with the line that docs/reverse-proxies.md shows. They set the headers
// of the tests.
var proxiesOfSockets = map[string]func(t *testing.T, line string) string{
	"nginx": func(t *testing.T, line string) string {
		return proxytest.Nginx(t, `server {
			listen `+proxytest.Listen+`;
			location = /events {
				`+line+`
				proxy_set_header Host $http_host;
				proxy_set_header X-User-ID 42;
				proxy_set_header X-Forwarded-For 203.0.113.7;
			}
		}`)
	},
	"Caddy": func(t *testing.T, line string) string {
		return proxytest.Caddy(t, "http://"+proxytest.Listen+` {
			`+line+` {
				header_up X-User-ID 42
				header_up X-Forwarded-For 203.0.113.7
			}
		}`)
	},
	"HAProxy": func(t *testing.T, line string) string {
		return proxytest.HAProxy(t, `defaults
  mode http
  timeout connect 5s
  timeout client 1m
  timeout server 1m
listen site
  bind `+proxytest.Listen+`
  option abortonclose
  http-request set-header X-User-ID 42
  http-request set-header X-Forwarded-For 203.0.113.7
  `+line+"\n")
	},
	"Apache": func(t *testing.T, line string) string {
		return proxytest.Apache(t, "<VirtualHost "+proxytest.Listen+`>
			ProxyPreserveHost On
			RequestHeader set X-User-ID 42
			`+line+`
		</VirtualHost>
`)
	},
}

// Real proxies reach a hub at a Unix socket, and the hub trusts their headers with --trusted-proxy unix:.
func TestUnixSocketBehindProxies(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts proxies")
	}
	server := redistest.Start(t)
	page := hubtest.ReadFile(t, "docs/reverse-proxies.md")
	for name, proxy := range proxiesOfSockets {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := socketPath(t)
			h := hubtest.Start(t, server, "--listen", "unix:"+path+"?mode=666", "--auth", "header", "--trusted-proxy", "unix:",
				"--ping-interval", "200ms") // Apache notices that a client has left when it writes
			_, after, ok := strings.Cut(page, "\n    # "+name+"\n    ")
			line, _, _ := strings.Cut(after, "\n")
			if !ok || !strings.Contains(line, "/run/usercast/usercast.sock") {
				t.Fatalf("docs/reverse-proxies.md has no line for %s", name)
			}
			s, err := ssetest.Open(proxy(t, strings.ReplaceAll(line, "/run/usercast/usercast.sock", path)), "")
			if err != nil {
				t.Fatal(err)
			}
			hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "hello")
			if e, err := s.Next(); err != nil || e.Data != "hello" {
				t.Errorf("got %q, %v", e.Data, err)
			}
			s.Close()
			hubtest.Eventually(t, "the end is logged with the address unix:", func() bool {
				return len(h.Log.Lines(`"stream ended"`, "user=42", "reason=closed", "remote=unix:")) == 1
			})
		})
	}
}

// Without --trusted-proxy unix:, headers from a Unix socket are ignored, and the log names the flag.
func TestUnixSocketIsNotTrustedByDefault(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	h := hubtest.Start(t, redistest.Start(t), "--listen", "unix:"+path, "--auth", "header", "--trusted-proxy", "0.0.0.0/0", "--trusted-proxy", "::/0")
	s, err := ssetest.RequestOn(dialSocket(t, path), "", "X-User-ID: 42")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Response.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", s.Response.StatusCode)
	}
	if len(h.Log.Lines("stream rejected", "remote=unix:", "--trusted-proxy unix:")) != 1 {
		t.Error("the log does not name the flag")
	}
}

// The app receives the address of the browser from a trusted Unix socket, and otherwise none: a Unix socket has no address.
func TestSessionCheckThroughUnixSocketHasTheClientAddress(t *testing.T) {
	t.Parallel()
	var address atomic.Value
	app := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		address.Store(strings.Join(r.Header["X-Forwarded-For"], ","))
		w.Header().Set("X-User-ID", "42")
	})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go app.Serve(l)
	t.Cleanup(func() { app.Close() })
	server := redistest.Start(t)
	for trusted, want := range map[string]string{"unix:": "203.0.113.7", "127.0.0.1": ""} {
		path := socketPath(t)
		hubtest.Start(t, server, "--listen", "unix:"+path, "--auth", "forward", "--forward-url", "http://"+l.Addr().String(), "--trusted-proxy", trusted)
		s, err := ssetest.OpenOn(dialSocket(t, path), "", "X-Forwarded-For: 203.0.113.7")
		if err != nil {
			t.Fatal(err)
		}
		if got := address.Load(); got != want {
			t.Errorf("with --trusted-proxy %s, the app receives %q, want %q", trusted, got, want)
		}
		s.Close()
	}
}

func dialSocket(t *testing.T, path string) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// A process replaces the socket of one that was killed, does not replace that of one that runs, and removes its own socket
// at the end. The admin listener works over a Unix socket, too.
func TestUnixSocketsOfProcesses(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	public, admin := socketPath(t), socketPath(t)
	args := []string{"serve", "--redis", server.URL(), "--auth", "insecure", "--listen", "unix:" + public, "--admin-listen", "unix:" + admin, "--drain-delay", "0s", "--drain", "0s"}
	start := func() *hubtest.Program {
		p := hubtest.StartProgram(t, nil, args...)
		p.Addresses(t)
		hubtest.Eventually(t, "usercast health reports that the hub is ready", func() bool {
			code, stdout, _ := hubtest.RunCommand(t, "health", "--admin-listen", "unix:"+admin)
			return code == 0 && stdout == "ready\n"
		})
		return p
	}
	killed := start()
	code, _, stderr := hubtest.RunCommand(t, args...)
	if code != 1 || !strings.Contains(stderr, "unix:"+public) || !strings.Contains(stderr, "another process listens on this socket") {
		t.Errorf("a second process: status %d, %s", code, stderr)
	}
	killed.Signal(syscall.SIGKILL)
	killed.Wait(t)

	p := start()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", admin) }}}
	for host, want := range map[string]int{"localhost": 200, "evil.example": 403} {
		response, err := client.Get("http://" + host + "/api/stats")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("the API for the host %s: status %d, want %d", host, response.StatusCode, want)
		}
	}
	p.Signal(syscall.SIGHUP)
	hubtest.Eventually(t, "the reload is logged", func() bool {
		return len(p.Stderr.Lines("configuration reloaded")) > 0 || len(p.Stderr.Lines("SIGHUP")) > 0
	})
	dialSocket(t, public).Close()

	p.Signal(syscall.SIGTERM)
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit status %d", code)
	}
	for _, path := range []string{public, admin} {
		if _, err := os.Lstat(path); !os.IsNotExist(err) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}
