package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"usercast/internal/certtest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// A settingsDir holds files that a program reads and reloads.
type settingsDir struct {
	t   *testing.T
	dir string
}

func (s settingsDir) path(name string) string { return filepath.Join(s.dir, name) }

func (s settingsDir) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// hangUp sends SIGHUP and returns the log line with the result.
func hangUp(t *testing.T, p *hubtest.Program) string {
	t.Helper()
	results := func() []string { return p.Stderr.Lines(`msg="configuration `, "changed=", "failed=") }
	before := len(results())
	p.Signal(syscall.SIGHUP)
	var lines []string
	hubtest.Eventually(t, "the settings were reloaded", func() bool {
		lines = results()
		return len(lines) > before
	})
	return lines[len(lines)-1]
}

// wantReload checks which items the log line reports as changed, unchanged and failed.
func wantReload(t *testing.T, line, changed, unchanged, failed string) {
	t.Helper()
	message := `msg="configuration reloaded"`
	if changed == "" && failed != "" {
		message = `msg="configuration not reloaded"`
	}
	if !strings.Contains(line, message) {
		t.Errorf("%swant %s", line, message)
	}
	if want := fmt.Sprintf("changed=%q unchanged=%q failed=%q", changed, unchanged, failed); !strings.Contains(quoteAll(line), want) {
		t.Errorf("%swant %s", line, want)
	}
}

// quoteAll adds quotes around unquoted values of a log line.
func quoteAll(line string) string {
	words := strings.Fields(line)
	for i, word := range words {
		if name, value, ok := strings.Cut(word, "="); ok && !strings.HasPrefix(value, `"`) {
			words[i] = fmt.Sprintf("%s=%q", name, value)
		}
	}
	return strings.Join(words, " ")
}

const (
	oldSecret = "an old secret of thirty-two bytes or so"
	newSecret = "a new secret of thirty-two bytes or so"
)

func tokenOf(t *testing.T, secret string) string {
	return "Authorization: Bearer " + hubtest.Token(t, secret, jwt.MapClaims{"sub": "42", "exp": time.Now().Add(time.Hour).Unix()})
}

// Reloads all settings at once: new values apply, removed values do not, and streams stay open.
func TestSIGHUPReloadsWithoutEndingStreams(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "old-password")
	files := settingsDir{t, t.TempDir()}
	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALLOW_ORIGIN=https://old.example,https://both.example\n")
	files.write("jwt", oldSecret+"\n")
	files.write("admin", "old-token\n")
	files.write("api", "old-api-token\n")
	files.write("redis", "old-password\n")
	p := hubtest.StartProgram(t, nil, "serve", "--env-file", files.path("usercast.env"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--redis", server.URL(), "--redis-password-file", files.path("redis"), "--jwt-secret-file", files.path("jwt"),
		"--admin-token-file", files.path("admin"), "--api-token-file", files.path("api"), "--drain-delay", "1h")
	public, private := p.Addresses(t)
	hubtest.Eventually(t, "the program is ready", func() bool { return hubtest.Request(t, "GET", "http://"+public+"/readyz").Status == 200 })
	publisher := hubtest.NewPublisher(t, server.Addr())
	publisher.Do(t, "AUTH", "old-password")
	var pages []*ssetest.Stream
	for _, origin := range []string{"https://old.example", "https://both.example"} {
		page, err := ssetest.Open(public, "", tokenOf(t, oldSecret), "Origin: "+origin)
		if err != nil {
			t.Fatal(err)
		}
		defer page.Close()
		pages = append(pages, page)
	}
	answers := func(name, origin, secret, token string, code, admin int) {
		t.Helper()
		if a := hubtest.Request(t, "OPTIONS", "http://"+public+"/events", "Origin: "+origin); a.Status != 204 && a.Status != 403 || (a.Status == 204) != (code != 403) {
			t.Errorf("%s: preflight of %s: status %d", name, origin, a.Status)
		}
		if code != 200 {
			if a := hubtest.Request(t, "GET", "http://"+public+"/events", tokenOf(t, secret), "Origin: "+origin); a.Status != code {
				t.Errorf("%s: status of a stream %d, want %d", name, a.Status, code)
			}
		} else if page, err := ssetest.Open(public, "", tokenOf(t, secret), "Origin: "+origin); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			page.Close()
		}
		if a := hubtest.Request(t, "GET", "http://"+private+"/api/users/42", "Authorization: Bearer "+token); a.Status != admin {
			t.Errorf("%s: status with admin token %s: %d, want %d", name, token, a.Status, admin)
		}
		apiToken := strings.Replace(token, "-token", "-api-token", 1)
		for path, want := range map[string]int{"/api/users/42/position": admin, "/api/users/42": 401} {
			if a := hubtest.Request(t, "GET", "http://"+private+path, "Authorization: Bearer "+apiToken); a.Status != want {
				t.Errorf("%s: status of %s with API token %s: %d, want %d", name, path, apiToken, a.Status, want)
			}
		}
	}
	all := "origins, log level, admin token, api token, jwt keys, redis password"
	wantReload(t, hangUp(t, p), "", all, "")

	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALLOW_ORIGIN=https://both.example,https://new.example\nUSERCAST_LOG_LEVEL=debug\nUSERCAST_RETRY=9s\n")
	files.write("jwt", newSecret+"\n")
	files.write("admin", "new-token\n")
	files.write("api", "new-api-token\n")
	files.write("redis", "new-password\n")
	wantReload(t, hangUp(t, p), all, "", "")
	check := func(name string) {
		t.Helper()
		answers(name+", new values", "https://new.example", newSecret, "new-token", 200, 200)
		answers(name+", unchanged values", "https://both.example", newSecret, "new-token", 200, 200)
		answers(name+", removed origin", "https://old.example", newSecret, "new-token", 403, 200)
		answers(name+", replaced keys", "https://both.example", oldSecret, "old-token", 401, 401)
		publisher.Publish(t, "user-42", name)
		for _, page := range pages {
			page.Want(t, name)
		}
	}
	check("after the first reload")
	if n := len(p.Stderr.Lines("level=WARN", "changed settings require a restart", "settings=USERCAST_RETRY")); n != 1 {
		t.Errorf("%d warnings of a setting that requires a restart", n)
	}

	// Each invalid value is logged and keeps the previous value; valid values still apply.
	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALLOW_ORIGIN=https://both.example,https://New.example/\nUSERCAST_LOG_LEVEL=loud\n")
	files.write("jwt", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n")
	files.write("admin", "\n")
	files.write("api", "\n")
	if err := os.Remove(files.path("redis")); err != nil {
		t.Fatal(err)
	}
	wantReload(t, hangUp(t, p), "", "", all)
	for item, why := range map[string]string{
		"origins": "write https://new.example", "log level": "use debug, info, warn or error", "jwt keys": "the secret is a PEM key",
		"admin token": "is empty", "api token": "is empty", "redis password": "no such file",
	} {
		if n := len(p.Stderr.Lines("level=WARN", "reload failed, keeping previous value", item, why)); n != 1 {
			t.Errorf("%d warnings about %s", n, item)
		}
	}
	check("after a failed reload")
	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALOW_ORIGIN=https://evil.example\n")
	files.write("admin", "newest-token\n")
	wantReload(t, hangUp(t, p), "admin token", "", "env file, api token, jwt keys, redis password")
	if len(p.Stderr.Lines("level=WARN", "unknown setting USERCAST_ALOW_ORIGIN")) != 1 {
		t.Error("no warning about the unknown setting")
	}
	files.write("admin", "new-token\n")
	hangUp(t, p)
	check("after an unknown setting")

	// New connections to Redis use the new password.
	server.Do("config", "set", "requirepass", "new-password")
	server.Do("client", "kill", "type", "pubsub")
	for _, page := range pages {
		page.WantGap(t, "redis-reconnect")
	}
	check("with the new password")

	// Reload while the program drains, with two signals in a row.
	p.Signal(syscall.SIGTERM)
	hubtest.Eventually(t, "the program drains", func() bool { return len(p.Stderr.Lines("msg=stopping")) == 1 })
	files.write("admin", "last-token\n")
	p.Signal(syscall.SIGHUP)
	p.Signal(syscall.SIGHUP)
	hubtest.Eventually(t, "the last token is accepted", func() bool {
		return hubtest.Request(t, "GET", "http://"+private+"/api/users/42", "Authorization: Bearer last-token").Status == 200
	})
	publisher.Publish(t, "user-42", "still here")
	for _, page := range pages {
		page.Want(t, "still here")
	}
	for _, secret := range []string{oldSecret, newSecret, "old-token", "new-token", "newest-token", "last-token", "old-password", "new-password"} {
		if strings.Contains(p.Stderr.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestSIGHUPBeforeRedisIsAvailable(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program")
	}
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	p := hubtest.StartProgram(t, nil, "serve", "--auth", "insecure", "--redis", server.URL(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	public, _ := p.Addresses(t)
	wantReload(t, hangUp(t, p), "", "", "")
	server.Restart()
	hubtest.Eventually(t, "the program is ready", func() bool { return hubtest.Request(t, "GET", "http://"+public+"/readyz").Status == 200 })
	p.Signal(syscall.SIGINT)
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Without signals, as in Kubernetes, changed files are detected by polling. With two secrets at the same
// time, a secret can be replaced without rejecting a page.
func TestChangedFilesAreReloadedWithoutASignal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program")
	}
	t.Parallel()
	server := redistest.Start(t)
	files := settingsDir{t, t.TempDir()}
	files.write("usercast.env", "USERCAST_ALLOW_ORIGIN=https://old.example\n")
	files.write("jwt-a", oldSecret)
	files.write("jwt-b", oldSecret)
	pair, renewed := certtest.New(t, "first"), certtest.New(t, "second")
	cert, key := pair.Write(t, files.dir)
	p := hubtest.StartProgram(t, nil, "serve", "--auth", "jwt", "--env-file", files.path("usercast.env"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--redis", server.URL(), "--jwt-secret-file", files.path("jwt-a"), "--jwt-secret-file", files.path("jwt-b"),
		"--tls-cert", cert, "--tls-key", key, "--reload-every", "10ms")
	public, private := p.Addresses(t)
	hubtest.Eventually(t, "the program is ready", func() bool { return hubtest.Request(t, "GET", "http://"+private+"/readyz").Status == 200 })
	pages := map[string]*ssetest.Stream{}
	open := func(secret string, shown certtest.Pair) {
		t.Helper()
		r := hubtest.TLSTransport(t, certtest.Pool(shown), true)
		pages[secret] = hubtest.OpenOver(t, r, "https://"+public+"/events", tokenOf(t, secret))
	}
	open(oldSecret, pair)

	renewed.Write(t, files.dir)
	hubtest.Eventually(t, "the certificate was reloaded", func() bool { return len(p.Stderr.Lines("configuration reloaded", "changed=certificate")) > 0 })
	files.write("jwt-b", newSecret)
	hubtest.Eventually(t, "the keys were reloaded", func() bool { return len(p.Stderr.Lines("configuration reloaded", `changed="jwt keys"`)) > 0 })
	open(newSecret, renewed)
	open(oldSecret, renewed)
	publisher := hubtest.NewPublisher(t, server.Addr())
	publisher.Publish(t, "user-42", "hello")
	for _, page := range pages {
		page.Want(t, "hello")
	}
	files.write("usercast.env", "USERCAST_ALLOW_ORIGIN=https://new.example\n")
	hubtest.Eventually(t, "the origins were reloaded", func() bool { return len(p.Stderr.Lines("configuration reloaded", "changed=origins")) > 0 })
}

// A hub whose apps have the token of the administrator logs this. A token that no client can send replaces no other.
func TestReloadChecksTheTokens(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program")
	}
	t.Parallel()
	server := redistest.Start(t)
	files := settingsDir{t, t.TempDir()}
	files.write("admin", "admin-token\n")
	files.write("api", "admin-token")
	p := hubtest.StartProgram(t, nil, "serve", "--auth", "insecure", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--redis", server.URL(), "--admin-token-file", files.path("admin"), "--api-token-file", files.path("api"))
	_, private := p.Addresses(t)
	same := func(want int) {
		t.Helper()
		if lines := p.Stderr.Lines("level=WARN", "api token is the admin token", "hint=", "--api-token-file"); len(lines) != want {
			t.Errorf("%d lines about the same token, want %d: %v", len(lines), want, lines)
		}
	}
	status := func(token string, want int) {
		t.Helper()
		if a := hubtest.Request(t, "GET", "http://"+private+"/api/users/42", "Authorization: Bearer "+token); a.Status != want {
			t.Errorf("status %d with %s, want %d", a.Status, token, want)
		}
	}
	same(1)
	files.write("api", "api-token\n")
	wantReload(t, hangUp(t, p), "api token", "admin token", "")
	same(1)
	status("api-token", 401)
	files.write("admin", "api-token")
	wantReload(t, hangUp(t, p), "admin token", "api token", "")
	same(2)
	files.write("admin", "new-admin\nanother\n")
	files.write("api", "new-api\nanother\n")
	wantReload(t, hangUp(t, p), "", "", "admin token, api token")
	status("api-token", 200) // the previous one
	for _, item := range []string{"admin", "api"} {
		if lines := p.Stderr.Lines("level=WARN", "reload failed, keeping previous value", `item="`+item+` token"`, files.path(item)+" has a line break"); len(lines) != 1 {
			t.Errorf("%d lines about the %s token: %s", len(lines), item, p.Stderr.String())
		}
	}
	files.write("admin", "b") // the two exchange their tokens: the admin token is that of the apps until both are read
	files.write("api", "a")
	hangUp(t, p)
	lines := len(p.Stderr.Lines("api token is the admin token"))
	files.write("admin", "a")
	files.write("api", "b")
	wantReload(t, hangUp(t, p), "admin token, api token", "", "")
	same(lines)
	if strings.Contains(p.Stderr.String(), "new-admin") || strings.Contains(p.Stderr.String(), "new-api") {
		t.Error("the log contains a token")
	}
}
