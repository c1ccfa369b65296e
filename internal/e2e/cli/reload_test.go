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

// A settingsDir holds files that a program reads, and reads anew.
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

// hangUp sends SIGHUP and returns the line that says what was read anew.
func hangUp(t *testing.T, p *hubtest.Program) string {
	t.Helper()
	before := len(p.Stderr.Lines(`msg="configuration reloaded"`))
	p.Signal(syscall.SIGHUP)
	var lines []string
	hubtest.Eventually(t, "the settings were read anew", func() bool {
		lines = p.Stderr.Lines(`msg="configuration reloaded"`)
		return len(lines) > before
	})
	return lines[len(lines)-1]
}

// says wants what a line tells of the items.
func says(t *testing.T, line, changed, unchanged, kept string) {
	t.Helper()
	if want := fmt.Sprintf("changed=%q unchanged=%q failed=%q", changed, unchanged, kept); !strings.Contains(quoteAll(line), want) {
		t.Errorf("%swant %s", line, want)
	}
}

// quoteAll puts quotes around values that the log has without.
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

// All that can be read anew, at once: what is new counts, what was removed does not, and
// no stream notices.
func TestHangUpReadsAnewAndEndsNoStream(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--requirepass", "old-password")
	files := settingsDir{t, t.TempDir()}
	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALLOW_ORIGIN=https://old.example,https://both.example\n")
	files.write("jwt", oldSecret+"\n")
	files.write("admin", "old-token\n")
	files.write("redis", "old-password\n")
	p := hubtest.StartProgram(t, nil, "serve", "--env-file", files.path("usercast.env"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--redis", server.URL(), "--redis-password-file", files.path("redis"), "--jwt-secret-file", files.path("jwt"),
		"--admin-token-file", files.path("admin"), "--drain-delay", "1h")
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
			t.Errorf("%s: %s is answered with %d", name, origin, a.Status)
		}
		if code != 200 {
			if a := hubtest.Request(t, "GET", "http://"+public+"/events", tokenOf(t, secret), "Origin: "+origin); a.Status != code {
				t.Errorf("%s: a stream is answered with %d, want %d", name, a.Status, code)
			}
		} else if page, err := ssetest.Open(public, "", tokenOf(t, secret), "Origin: "+origin); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			page.Close()
		}
		if a := hubtest.Request(t, "GET", "http://"+private+"/api/users/42", "Authorization: Bearer "+token); a.Status != admin {
			t.Errorf("%s: %s is answered with %d, want %d", name, token, a.Status, admin)
		}
	}
	all := "origins, log level, admin token, jwt keys, redis password"
	says(t, hangUp(t, p), "", all, "")

	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALLOW_ORIGIN=https://both.example,https://new.example\nUSERCAST_LOG_LEVEL=debug\nUSERCAST_RETRY=9s\n")
	files.write("jwt", newSecret+"\n")
	files.write("admin", "new-token\n")
	files.write("redis", "new-password\n")
	says(t, hangUp(t, p), all, "", "")
	check := func(name string) {
		t.Helper()
		answers(name+", what is new", "https://new.example", newSecret, "new-token", 200, 200)
		answers(name+", what stayed", "https://both.example", newSecret, "new-token", 200, 200)
		answers(name+", an origin that was removed", "https://old.example", newSecret, "new-token", 403, 200)
		answers(name+", keys that were replaced", "https://both.example", oldSecret, "old-token", 401, 401)
		publisher.Publish(t, "user-42", name)
		for _, page := range pages {
			page.Want(t, name)
		}
	}
	check("after the first")
	if n := len(p.Stderr.Lines("level=WARN", "changed settings require a restart", "settings=USERCAST_RETRY")); n != 1 {
		t.Errorf("%d warnings of a setting that needs a restart", n)
	}

	// Each fault is named, and changes nothing; what is right is taken all the same.
	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALLOW_ORIGIN=https://both.example,https://New.example/\nUSERCAST_LOG_LEVEL=loud\n")
	files.write("jwt", "-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n")
	files.write("admin", "\n")
	if err := os.Remove(files.path("redis")); err != nil {
		t.Fatal(err)
	}
	says(t, hangUp(t, p), "", "", all)
	for item, why := range map[string]string{
		"origins": "write https://new.example", "log level": "use debug, info, warn or error", "jwt keys": "the secret is a PEM key",
		"admin token": "is empty", "redis password": "no such file",
	} {
		if n := len(p.Stderr.Lines("level=WARN", "reload failed, keeping previous value", item, why)); n != 1 {
			t.Errorf("%d warnings of the %s", n, item)
		}
	}
	check("after a faulty one")
	files.write("usercast.env", "USERCAST_AUTH=jwt\nUSERCAST_ALOW_ORIGIN=https://evil.example\n")
	files.write("admin", "newest-token\n")
	says(t, hangUp(t, p), "admin token", "", "env file, jwt keys, redis password")
	if len(p.Stderr.Lines("level=WARN", "unknown setting USERCAST_ALOW_ORIGIN")) != 1 {
		t.Error("no warning of the setting that is not")
	}
	files.write("admin", "new-token\n")
	hangUp(t, p)
	check("after an unknown setting")

	// Whoever connects to Redis from now on has the new password.
	server.Do("config", "set", "requirepass", "new-password")
	server.Do("client", "kill", "type", "pubsub")
	for _, page := range pages {
		page.WantGap(t, "redis-reconnect")
	}
	check("with the new password")

	// While it drains, and twice at once.
	p.Signal(syscall.SIGTERM)
	hubtest.Eventually(t, "the program drains", func() bool { return len(p.Stderr.Lines("msg=stopping")) == 1 })
	files.write("admin", "last-token\n")
	p.Signal(syscall.SIGHUP)
	p.Signal(syscall.SIGHUP)
	hubtest.Eventually(t, "the last token counts", func() bool {
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

func TestHangUpBeforeRedisIsThere(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program")
	}
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	p := hubtest.StartProgram(t, nil, "serve", "--auth", "insecure", "--redis", server.URL(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
	public, _ := p.Addresses(t)
	says(t, hangUp(t, p), "", "", "")
	server.Restart()
	hubtest.Eventually(t, "the program is ready", func() bool { return hubtest.Request(t, "GET", "http://"+public+"/readyz").Status == 200 })
	p.Signal(syscall.SIGINT)
	if code := p.Wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// Where nobody sends signals, as in Kubernetes, it looks by itself. Two secrets at once are
// how one is replaced without a page that is refused.
func TestFilesThatChangeAreReadAnewWithoutASignal(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a program")
	}
	t.Parallel()
	server := redistest.Start(t)
	files := settingsDir{t, t.TempDir()}
	files.write("usercast.env", "USERCAST_ALLOW_ORIGIN=https://old.example\n")
	files.write("current", oldSecret)
	files.write("previous", oldSecret)
	pair, renewed := certtest.New(t, "first"), certtest.New(t, "second")
	cert, key := pair.Write(t, files.dir)
	p := hubtest.StartProgram(t, nil, "serve", "--auth", "jwt", "--env-file", files.path("usercast.env"), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0",
		"--redis", server.URL(), "--jwt-secret-file", files.path("current"), "--jwt-secret-file", files.path("previous"),
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
	hubtest.Eventually(t, "the certificate was read anew", func() bool { return len(p.Stderr.Lines("configuration reloaded", "changed=certificate")) > 0 })
	files.write("current", newSecret)
	hubtest.Eventually(t, "the keys were read anew", func() bool { return len(p.Stderr.Lines("configuration reloaded", `changed="jwt keys"`)) > 0 })
	open(newSecret, renewed)
	open(oldSecret, renewed)
	publisher := hubtest.NewPublisher(t, server.Addr())
	publisher.Publish(t, "user-42", "hello")
	for _, page := range pages {
		page.Want(t, "hello")
	}
	files.write("usercast.env", "USERCAST_ALLOW_ORIGIN=https://new.example\n")
	hubtest.Eventually(t, "the origins were read anew", func() bool { return len(p.Stderr.Lines("configuration reloaded", "changed=origins")) > 0 })
}
