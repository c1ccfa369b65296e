package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"usercast/internal/hubtest"
)

// runCommand runs the program in this process, for commands that end without a signal.
func runCommand(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func TestAllInvalidFlagsAreReported(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runCommand("", "serve",
		"--listen", "nowhere", "--admin-listen", "127.0.0.1:http-or-so", "--path", "events", "--allow-origin", "https://App.example/",
		"--channel-prefix", "", "--broadcast-user", "a:b", "--max-payload", "much", "--ping-interval", "15", "--write-timeout", "0s",
		"--retry=-1s", "--max-age=-1s", "--queue", "0", "--queue-bytes", "x", "--queue-total-bytes", "0", "--send-buffer", "1",
		"--max-clients=-1", "--max-clients-per-user", "many", "--drain-delay", "soon", "--drain=-1s",
		"--log-level", "loud", "--log-format", "xml", "--name", "a\nb", "--redis", "localhost:6379", "--admin-token-file", empty, "--api-token-file", empty)
	if code != 2 || stdout != "" {
		t.Errorf("exit code %d, want 2; stdout %q", code, stdout)
	}
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	for _, flag := range []string{
		"listen", "admin-listen", "path", "allow-origin", "channel-prefix", "broadcast-user", "max-payload", "ping-interval", "write-timeout",
		"retry", "max-age", "queue", "queue-bytes", "queue-total-bytes", "send-buffer", "max-clients", "max-clients-per-user",
		"drain-delay", "drain", "log-level", "log-format", "name", "redis", "admin-token-file", "api-token-file", "auth",
	} {
		n := 0
		for _, line := range lines {
			if strings.HasPrefix(line, "usercast: --"+flag+": ") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d lines about --%s, want 1", n, flag)
		}
	}
	if len(lines) != 26 {
		t.Errorf("%d lines, want 26", len(lines))
	}
	if t.Failed() {
		t.Log(stderr)
	}
}

func TestInvalidUsageIsReportedInOneLine(t *testing.T) {
	twoLines := hubtest.SecretFile(t, "token\nother")
	for _, test := range []struct {
		want string
		args []string
	}{
		{"missing command; run usercast --help", nil},
		{"unexpected argument", []string{"server"}},
		{"--lisen", []string{"serve", "--lisen", ":80"}},
		{"--auth: required. jwt: ", []string{"serve"}},
		{`unknown mode "jtw"; use jwt`, []string{"serve", "--auth", "jtw"}},
		{"--auth: jwt requires exactly one of", []string{"serve", "--auth", "jwt"}},
		{"--jwt-key-file: ", []string{"serve", "--auth", "jwt", "--jwt-key-file", os.DevNull}},
		{"--jwt-secret-file: ", []string{"serve", "--auth", "jwt", "--jwt-secret-file", os.DevNull}},
		{"--jwt-secret-file: the secret has only 5 bytes", []string{"serve", "--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, "short")}},
		{"--jwt-jwks-url: the same URL is set twice", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1/", "--jwt-jwks-url", "http://127.0.0.1/"}},
		{"--jwt-audience: must not be empty", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1/", "--jwt-audience", ",us"}},
		{"--jwt-header: Cookie is reserved", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1/", "--jwt-header", "Cookie"}},
		{"--jwt-header: \"a b\" is not a valid header name", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1/", "--jwt-header", "a b"}},
		{"--jwt-expired-grace: must not be negative", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1/", "--jwt-expired-grace=-1s"}},
		{"--jwt-header: requires --auth jwt", []string{"serve", "--auth", "insecure", "--jwt-header", "x"}},
		{"--jwt-groups-claim: requires --auth jwt", []string{"serve", "--auth", "insecure", "--jwt-groups-claim", "teams"}},
		{"--jwt-groups-claim: requires --group-prefix", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1/", "--jwt-groups-claim", "teams"}},
		{"--jwt-groups-claim: must not be empty", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1/", "--jwt-groups-claim", "", "--group-prefix", "group-"}},
		{"--jwt-jwks-url: ", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "jwks.json"}},
		{"--jwt-issuer: requires --auth jwt", []string{"serve", "--auth", "insecure", "--jwt-issuer", "x"}},
		{"--forward-url: required", []string{"serve", "--auth", "forward"}},
		{"--forward-url: invalid URL", []string{"serve", "--auth", "forward", "--forward-url", "http://127.0.0.1:99999/"}},
		{"--forward-host: \"https://app.example\" is not a host", []string{"serve", "--auth", "forward", "--forward-url", "http://127.0.0.1/", "--forward-host", "https://app.example"}},
		{"--forward-host: requires --auth forward", []string{"serve", "--auth", "insecure", "--forward-host", "app.example"}},
		{"--forward-header: host cannot be forwarded", []string{"serve", "--auth", "forward", "--forward-url", "http://127.0.0.1/", "--forward-header", "X-Tenant", "--forward-header", "host"}},
		{"--forward-header: requires --auth forward", []string{"serve", "--auth", "insecure", "--forward-header", "X-Tenant"}},
		{"--user-header: Cookie is reserved", []string{"serve", "--auth", "header", "--trusted-proxy", "10.0.0.5", "--user-header", "Cookie"}},
		{"--user-header: content-length is reserved", []string{"serve", "--auth", "forward", "--forward-url", "http://127.0.0.1/", "--user-header", "content-length"}},
		{"--user-header: requires --auth forward or header", []string{"serve", "--auth", "insecure", "--user-header", "X-Foo"}},
		{"--user-header: x-user-groups is reserved", []string{"serve", "--auth", "forward", "--forward-url", "http://127.0.0.1/", "--user-header", "x-user-groups"}},
		{"--max-groups: must be at least 0", []string{"serve", "--auth", "insecure", "--max-groups=-1"}},
		{"--max-groups: ", []string{"dev", "--max-groups", "many"}},
		{"--max-groups: requires --group-prefix", []string{"dev", "--max-groups", "3"}},
		{"--max-groups: requires --group-prefix", []string{"serve", "--auth", "insecure", "--max-groups", "0"}},
		{"--group-prefix: the channel prefixes of users and groups must not start with each other", []string{"serve", "--auth", "insecure", "--group-prefix", "user-group-"}},
		{"--group-prefix: the channel prefix also matches usercast's internal channels", []string{"dev", "--group-prefix", "usercast:"}},
		{"--trusted-proxy: required with --auth header", []string{"serve", "--auth", "header"}},
		{"--trusted-proxy: ", []string{"serve", "--auth", "header", "--trusted-proxy", "10.0.0.0/33"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", "0.0.0.0:0"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", ":0"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", "[::]:0"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", "10.0.0.1:0"}},
		{"--listen", []string{"dev", "--listen", "0.0.0.0:0"}},
		{"usercast:", []string{"serve", "--auth", "insecure", "--channel-prefix", "usercast:"}},
		{"the user id must not be empty", []string{"publish", "", "x"}},
		{"the user id must not be empty", []string{"publish", ":topic", "x"}},
		{"missing argument <user[:topic]>", []string{"publish"}},
		{"--listen: missing value", []string{"serve", "--listen"}},
		{"--admin-listen", []string{"health", "--admin-listen", "8081"}},
		{"--redis", []string{"publish", "--redis", "http://127.0.0.1", "42", "x"}},
		{"--redis: exactly one URL", []string{"publish", "--redis", "redis://127.0.0.1", "--redis", "redis://127.0.0.2", "42", "x"}},
		{"--admin-listen: must differ", []string{"serve", "--auth", "insecure", "--listen", "127.0.0.1:8080", "--admin-listen", "127.0.0.1:8080"}},
		{"--admin-token-file: the token in " + twoLines + " has a line break", []string{"serve", "--auth", "insecure", "--admin-token-file", twoLines}},
		{"--api-token-file: the token in " + twoLines + " has a line break", []string{"dev", "--api-token-file", twoLines}},
		{"--retry: must be between", []string{"serve", "--auth", "insecure", "--retry", "100us"}},
		{"--redis-password-file", []string{"publish", "--redis-password-file", "/nonexistent", "42", "x"}},
		{"unexpected argument", []string{"version", "now"}},
		{"--path: ", []string{"serve", "--auth", "insecure", "--path", "/a%20b"}},
		{"--send-buffer: must be between 4KiB and 1GiB", []string{"serve", "--auth", "insecure", "--send-buffer", "2000000000"}},
		{`--queue: "-1" looks like a flag`, []string{"serve", "--auth", "insecure", "--queue", "-1"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			code, stdout, stderr := runCommand("", test.args...)
			if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "usercast: ") || !strings.Contains(stderr, test.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want 2 and one line with %q", code, stdout, stderr, test.want)
			}
		})
	}
}

func TestPortInUseIsReportedInOneLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for flag, other := range map[string]string{"--listen": "--admin-listen", "--admin-listen": "--listen"} {
		code, stdout, stderr := runCommand("", "serve", "--auth", "insecure", flag, l.Addr().String(), other, "127.0.0.1:0")
		if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 ||
			!strings.Contains(stderr, l.Addr().String()+": port already in use") || !strings.HasSuffix(stderr, " "+flag+"\n") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", flag, code, stdout, stderr)
		}
	}
	code, _, stderr := runCommand("", "serve", "--auth", "insecure", "--auth-insecure-anywhere", "--listen", "203.0.113.1:0")
	if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "cannot listen on 203.0.113.1:0 (--listen)") {
		t.Errorf("an address of another host: exit code %d, %q", code, stderr)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := runCommand("", "version")
	if want := fmt.Sprintf(" %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH); code != 0 || stderr != "" ||
		!strings.HasPrefix(stdout, "usercast ") || !strings.HasSuffix(stdout, want) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestHelpListsCommandsAndFlags(t *testing.T) {
	code, stdout, stderr := runCommand("", "--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	absent := map[string][]string{"dev": {"jwt", "forward", "trusted"}} // dev does not authenticate users
	for _, command := range []string{"serve", "dev", "publish", "health", "version"} {
		if !strings.Contains(stdout, "\n  "+command+" ") {
			t.Errorf("help does not list %s:\n%s", command, stdout)
		}
		code, help, _ := runCommand("", command, "--help")
		if code != 0 || !strings.Contains(help, "Usage: usercast "+command) {
			t.Errorf("%s --help: exit code %d, %q", command, code, help)
		}
		for _, absent := range append(absent[command], "${") {
			if strings.Contains(help, absent) {
				t.Errorf("%s --help contains %s", command, absent)
			}
		}
	}
}

// README shows the output of dev for make run.
func TestReadmeShowsTheOutputOfDev(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const command = `go run ./cmd/usercast publish --redis redis://127.0.0.1:6379 42:activity '{"kind":"comment","id":7}'`
	if !strings.Contains(string(readme), "\n    "+command+"\n") {
		t.Errorf("README does not show %s", command)
	}
	if without := regexp.MustCompile(`(?m)^\s+(go run ./cmd/)?usercast publish 42.*$`).FindString(string(readme)); without != "" {
		t.Errorf("this command publishes to port 6379, even if the embedded Redis uses another port: %s", without)
	}
}
