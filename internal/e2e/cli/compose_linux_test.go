package cli

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"usercast/internal/hubtest"
	"usercast/internal/netnstest"
	"usercast/internal/redistest"
)

// The console of docker-compose.yml works through the published port with the token that its service
// admin-token creates, and not without it. With Compose, the remote address is Docker's gateway; in this test, it
// is an address in another network.
func TestComposeConsoleAcceptsTheToken(t *testing.T) {
	t.Parallel()
	text := hubtest.ReadFile(t, "docker-compose.yml")
	var file struct {
		Services map[string]struct {
			Environment map[string]string
			Command     []string
			Volumes     []string
			Ports       []string
		}
	}
	if err := yaml.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	hub, maker := file.Services["hub-a"], file.Services["admin-token"]

	// The mount point of the volume, the same in both services.
	const inside = "/run/usercast"
	volume := t.TempDir()
	if err := os.Chmod(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(append(hub.Volumes, maker.Volumes...), " "); got != "admin-token:"+inside+":ro admin-token:"+inside {
		t.Fatalf("the volumes are %s", got)
	}
	makeToken := func() string {
		t.Helper()
		var args []string
		for _, a := range maker.Command {
			// Compose replaces $$ with $.
			args = append(args, strings.ReplaceAll(strings.ReplaceAll(a, inside, volume), "$$", "$"))
		}
		// As the entrypoint of the Redis image starts commands.
		cmd := exec.Command("sh", append([]string{"-c", `umask 0077; exec "$@"`, "sh"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		token, err := os.ReadFile(filepath.Join(volume, "admin-token"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(token))
	}
	token := makeToken()
	if len(token) < 32 || makeToken() != token {
		t.Errorf("the token %q is too short, or created again at each start", token)
	}
	info, err := os.Stat(filepath.Join(volume, "admin-token"))
	if err != nil || info.Mode().Perm() != 0o444 {
		t.Errorf("the hub's user cannot read the token: %v, %v", info, err)
	}

	network := netnstest.New(t)
	var env []string
	for name, value := range hub.Environment {
		env = append(env, name+"="+strings.ReplaceAll(value, inside, volume))
	}
	env = append(env, "USERCAST_REDIS="+redistest.Start(t).URL(), "USERCAST_LISTEN=0.0.0.0:0", "USERCAST_ADMIN_LISTEN=0.0.0.0:0")
	p := hubtest.StartProgram(t, env, "serve")
	_, admin := p.Addresses(t)
	_, port, err := net.SplitHostPort(admin)
	if err != nil {
		t.Fatal(err)
	}
	gateway := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(context.Context, string, string) (conn net.Conn, err error) {
		network.In(func() { conn, err = net.Dial("tcp", net.JoinHostPort(network.Host(), port)) })
		return conn, err
	}}}
	get := func(path, host, token string) (code int, body string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodGet, "http://"+host+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := gateway.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	published := strings.TrimSuffix(hub.Ports[0], ":8081")
	hubtest.Eventually(t, "the hub is ready", func() bool { code, _ := get("/readyz", published, ""); return code == http.StatusOK })
	for _, c := range []struct {
		path, host, token string
		code              int
		has               string
	}{
		{"/", published, "", http.StatusUnauthorized, "<title>usercast console</title>"}, // the page, which prompts for the token
		{"/api/stats", published, token, http.StatusOK, `"clients"`},
		{"/api/users/42", published, token, http.StatusOK, `"streams"`},
		{"/debug/pprof/", published, token, http.StatusOK, "goroutine"},
		{"/api/stats", published, "", http.StatusUnauthorized, ""},
		{"/api/stats", published, "usercast", http.StatusUnauthorized, ""},
		{"/api/stats", "rebound.example:8081", "", http.StatusUnauthorized, ""},
		{"/debug/pprof/", published, "", http.StatusUnauthorized, ""},
		{"/metrics", "hub-a:8081", "", http.StatusOK, "usercast_clients "}, // Prometheus sends no token
	} {
		if code, body := get(c.path, c.host, c.token); code != c.code || !strings.Contains(body, c.has) {
			t.Errorf("%s at %s with token %q: %d, %.200s, want %d and %q", c.path, c.host, c.token, code, body, c.code, c.has)
		}
	}
}
