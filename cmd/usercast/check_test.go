package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/proxytest"
	"usercast/internal/redistest"
)

// runCheck runs check and returns its output and exit code.
func runCheck(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(append([]string{"check"}, args...), strings.NewReader(""), &out, &errs)
	return out.String(), errs.String(), code
}

// anywhere returns flags of a hub whose ports are not checked.
func anywhere(redisURL string, flags ...string) []string {
	return append([]string{"--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--redis", redisURL}, flags...)
}

func TestCheckExitCodes(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, c := range []struct {
		code    int
		out, on string // texts that stdout and stderr must contain
		args    []string
	}{
		{0, "0 failed", "", anywhere(server.URL(), "--auth", "insecure")},
		{1, "--auth: required. jwt: ", "check: found 1 failure", anywhere(server.URL())},
		{1, "--ping-interval: must be between", "check: found 2 failures", anywhere(server.URL(), "--auth", "insecure", "--ping-interval", "2h", "--feed", "neither")},
		{1, "check that Redis is running", "found 1 failure", anywhere(fmt.Sprintf("redis://127.0.0.1:%d", redistest.FreePort(t)), "--auth", "insecure")},
		{2, "", "--user: missing value\n", []string{"--user"}},
		{2, "", "--watch: must not be negative\nusercast: --timeout: invalid duration \"3\"", anywhere(server.URL(), "--watch=-1s", "--timeout", "3")},
		{2, "", "--hear: must not be negative", anywhere(server.URL(), "--hear=-1s")},
		{2, "", "--url: required with --header", anywhere(server.URL(), "--user", "42")},
		{2, "", "--user: \"*\" is an invalid user id", anywhere(server.URL(), "--url", "http://127.0.0.1:1/events", "--user", "*")},
		{2, "", "--header: a header must have the form", anywhere(server.URL(), "--url", "http://127.0.0.1:1/events", "--header", "Cookie")},
		{2, "", "unknown flag --nonsense", []string{"--nonsense"}},
	} {
		stdout, stderr, code := runCheck(t, c.args...)
		if code != c.code || !strings.Contains(stdout, c.out) || !strings.Contains(stderr, c.on) || code == 2 && stdout != "" {
			t.Errorf("check %v: exit code %d, want %d\n%s\n%s", c.args, code, c.code, stdout, stderr)
		}
	}
}

// check distinguishes what is at the path of a Unix socket, and does not change it.
func TestCheckOfAUnixSocketThatExists(t *testing.T) {
	t.Parallel()
	stale, file := t.TempDir()+"/s", t.TempDir()+"/f"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		stale: "ok    unix:" + stale + " is the socket of a process that no longer runs, and the hub replaces it (--listen)",
		file:  "is not a socket; remove it, or choose another path\n        → correct the path of the socket",
	} {
		stdout, _, _ := runCheck(t, "--auth", "jwt", "--listen", "unix:"+path, "--admin-listen", "127.0.0.1:0", "--redis", "redis://127.0.0.1:1")
		if !strings.Contains(stdout, want) {
			t.Errorf("want %q in\n%s", want, stdout)
		}
		if _, err := os.Lstat(path); err != nil {
			t.Error(err)
		}
	}
}

func TestCheckReportsAnInvalidSeparatorOnce(t *testing.T) {
	t.Parallel()
	stdout, _, _ := runCheck(t, anywhere("redis://127.0.0.1:1", "--auth", "insecure", "--topic-separator", "*")...)
	if !strings.Contains(stdout, "--topic-separator: ") || strings.Contains(stdout, "--broadcast-user: ") {
		t.Error(stdout)
	}
}

// configRisks returns the findings about a configuration that are not ok.
func configRisks(t *testing.T, flags ...string) (found []string) {
	t.Helper()
	stdout, _, _ := runCheck(t, append(anywhere("redis://127.0.0.1:1", flags...), "--json")...) // the findings about Redis do not matter
	var report struct {
		Parts []struct {
			Findings []struct{ Name, Level string }
		}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	for _, f := range report.Parts[0].Findings {
		if f.Level != "ok" {
			found = append(found, f.Level+" "+f.Name)
		}
	}
	return found
}

func TestCheckNamesUnknownVariables(t *testing.T) {
	secret := hubtest.SecretFile(t, strings.Repeat("long-", 8))
	t.Setenv("USERCAST_SERVICE_HOST", "10.0.0.1") // set by Kubernetes
	t.Setenv("USERCAST_PORT_8080_TCP_ADDR", "10.0.0.1")
	if found := configRisks(t, "--auth", "jwt", "--jwt-secret-file", secret); len(found) > 0 {
		t.Errorf("found %v of Kubernetes' variables", found)
	}
	t.Setenv("USERCAST_PING_INTERVALL", "5s")
	if found := configRisks(t, "--auth", "jwt", "--jwt-secret-file", secret); !slices.Equal(found, []string{"warn config-variable"}) {
		t.Errorf("found %v, want config-variable", found)
	}
}

// Each risk has a finding. A plain configuration has no risks.
func TestCheckNamesRisks(t *testing.T) {
	t.Parallel()
	socket := "unix:" + t.TempDir() + "/s"
	long := hubtest.SecretFile(t, strings.Repeat("long-", 8))
	jwt := []string{"--auth", "jwt", "--jwt-secret-file", long}
	with := func(flags ...string) []string { return slices.Concat(jwt, flags) }
	for _, c := range []struct {
		want  string
		flags []string
	}{
		{"", jwt},
		{"", with("--feed", "stream")},
		{"warn config-insecure", []string{"--auth", "insecure"}},
		{"note config-unused", with("--auth-cache", "1s")},
		{"note config-unused", with("--auth-insecure-anywhere")},
		{"warn config-jwt-claim", with("--jwt-claim", "exp")},
		{"fail config", []string{"--auth", "jwt", "--jwt-secret-file", hubtest.SecretFile(t, "short")}},
		{"warn config-jwks", []string{"--auth", "jwt", "--jwt-jwks-url", "http://login.example/", "--jwt-audience", "us", "--jwt-issuer", "me"}},
		{"note config-jwt-audience", []string{"--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1:1/"}},
		{"note config-jwt-issuer", []string{"--auth", "jwt", "--jwt-jwks-url", "http://127.0.0.1:1/", "--jwt-authorized-party", "us"}},
		{"note config-jwt-query", with("--jwt-query")},
		{"", with("--group-prefix", "group-", "--max-groups", "100")},
		{"fail config", with("--max-groups", "100")},
		{"note config-groups-header", []string{"--auth", "header", "--trusted-proxy", "127.0.0.1", "--group-prefix", "group-"}},
		{"warn config-path", with("--path", "/a/../b")},
		{"note config-origins", with("--allow-origin", "https://app.example")},
		{"warn config-ping-interval", with("--ping-interval", "1m")},
		{"warn config-max-age", with("--max-age", "5s")},
		{"note config-drain", with("--drain", "1m")},
		{"note config-history", with("--history-age", "0")},
		{"warn config-queue", with("--max-payload", "2MiB")},
		{"warn config-unused", with("--stream-key", "app:log")},
		{"warn config-unused", with("--feed", "stream", "--control-channel", "app:control")},
		{"warn config-unused", with("--feed", "stream", "--name", "a")},
		{"warn config-unused", with("--feed", "stream", "--history-per-user", "10")},
		{"warn config-unused", with("--feed", "stream", "--history-age", "1m")},
		{"warn config-descriptors", with("--max-clients", "100000000")},
		{"warn config-memory", with("--history-bytes", "900GiB")},
		{"note config-admin", with("--admin-listen", "0.0.0.0:0")},
		{"", with("--admin-token-file", long, "--api-token-file", hubtest.SecretFile(t, "other"))},
		{"warn config-tokens", with("--admin-token-file", long, "--api-token-file", long)},
		{"fail config-trusted-proxy", []string{"--auth", "header", "--trusted-proxy", "0.0.0.0/0"}},
		{"warn config-trusted-proxy", []string{"--auth", "header", "--trusted-proxy", "0.0.0.0/1", "--listen", "0.0.0.0:0"}},
		{"", []string{"--auth", "header", "--trusted-proxy", "unix:", "--listen", socket}},
		{"fail config-trusted-proxy", []string{"--auth", "header", "--trusted-proxy", "127.0.0.1", "--listen", socket}},
		{"warn config-trusted-proxy", []string{"--auth", "header", "--trusted-proxy", "unix:", "--listen", socket + "?mode=666"}},
		{"warn config-trusted-proxy", []string{"--auth", "forward", "--forward-url", "http://127.0.0.1:1", "--listen", socket}},
		{"note config-unused", []string{"--auth", "header", "--trusted-proxy", "unix:"}},
		{"", []string{"--auth", "header", "--trusted-proxy", "unix:", "--listen", "systemd"}}, // which may be a Unix socket
	} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			found := configRisks(t, c.flags...)
			if c.want == "" && len(found) > 0 || c.want != "" && !slices.Contains(found, c.want) {
				t.Errorf("%v: found %v, want %s", c.flags, found, c.want)
			}
		})
	}
}

// check distinguishes a running hub from other programs at the hub's addresses, and sends a session check to the app.
func TestCheckNextToARunningHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	app := hubtest.StartSessionApp(t)
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	h := hubtest.Start(t, server, "--auth", "forward", "--forward-url", app.URL, "--ping-interval", "50ms")
	flags := []string{"--redis", server.URL(), "--auth", "forward", "--listen", h.PublicAddr(), "--ping-interval", "50ms", "--watch", "1s"}
	here := append(slices.Clone(flags), "--admin-listen", h.AdminAddr(), "--forward-url", app.URL)

	stdout, stderr, code := runCheck(t, append(here, "--header", "Cookie: session=42; secret=secret-cookie", "--url", "http://"+h.PublicAddr()+"/events?token=secret-token")...)
	for _, want := range []string{"a hub is running at " + h.PublicAddr(), "a hub is running at " + h.AdminAddr(), "rejects unauthenticated requests", "3 events", "received pings", "the hub noticed the closed stream", "1 hub publishes markers: ", "0 failed, 0 warnings"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if code != 0 || strings.Contains(stdout+stderr, "secret") {
		t.Errorf("exit code %d\n%s\n%s", code, stdout, stderr)
	}

	without := redistest.Start(t).URL() // with a hub, each check would wait for its next marker
	flags[1], here[1] = without, without
	for want, args := range map[string][]string{
		"port already in use":      append(slices.Clone(flags), "--admin-listen", other.Listener.Addr().String(), "--forward-url", app.URL),
		"session checks to itself": append(slices.Clone(flags), "--admin-listen", h.AdminAddr(), "--forward-url", "http://"+h.PublicAddr()+"/session"),
		"authentication with ":     append(slices.Clone(flags), "--admin-listen", h.AdminAddr(), "--forward-url", other.URL),
		"401 Unauthorized":         append(here, "--url", "http://"+h.PublicAddr()+"/events"),
	} {
		if stdout, _, code := runCheck(t, args...); code != 1 || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d, no %q in\n%s", code, want, stdout)
		}
	}
	app.Status.Store(http.StatusFound)
	if stdout, _, _ := runCheck(t, here...); !strings.Contains(stdout, "redirects unauthenticated requests") {
		t.Errorf("a redirect:\n%s", stdout)
	}
}

// Ctrl-C ends only the waiting: the report is complete, for each Redis.
func TestInterruptedObservationReportsWhatWasReceived(t *testing.T) {
	t.Parallel()
	one, two := redistest.Start(t), redistest.Start(t)
	p := hubtest.StartProgram(t, nil, append([]string{"check"}, anywhere(one.URL(), "--redis", two.URL(), "--auth", "insecure", "--hear", "1h")...)...)
	for _, server := range []*redistest.Server{one, two} {
		server.Await("it is observed", func() bool { return server.Do("pubsub", "numpat") == int64(1) })
		server.Do("publish", "myapp_database_user-42:activity", "secret-payload")
	}
	p.Signal(os.Interrupt)
	code, out := p.Wait(t), p.Stdout.String()
	for _, want := range []string{"published to " + one.Addr(), "published to " + two.Addr(), "0 failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code != 0 || strings.Contains(out, "secret-payload") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// changing matches values that differ between two runs.
var changing = regexp.MustCompile(`\b[0-9][0-9.]*(µs|ms|s|:[0-9]+)?\b( ms)?`)

func TestCheckPrintsWhatItsPageShows(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a proxy")
	}
	t.Parallel()
	page, err := os.ReadFile("../../docs/check.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "\n```\n")
	server := redistest.Start(t)
	server.Do("acl", "setuser", "hub", "on", ">secret", "resetkeys", "resetchannels", "&user-*", "&usercast:user-probe:*", "-@all",
		"+psubscribe", "+subscribe", "+publish", "+ping", "+info", "+client|setname")
	// The buffering proxy delays the headers for longer than the timeout: it forwards blocks of 1460 bytes, and the pings
	// within the timeout are smaller than that.
	h := hubtest.Start(t, server, "--ping-interval", "300ms")
	flags := []string{"--listen", h.PublicAddr(), "--admin-listen", h.AdminAddr(), "--redis", "redis://hub:secret@" + server.Addr(), "--auth", "insecure",
		"--timeout", "2s", "--ping-interval", "300ms", "--watch", "2s"}
	location := func(more string) string {
		return proxytest.Nginx(t, "server { listen "+proxytest.Listen+"; location / { proxy_pass http://"+h.PublicAddr()+"; proxy_set_header Host $http_host; "+more+" } }")
	}
	for i, proxy := range []string{location("proxy_ignore_headers X-Accel-Buffering;"), location("")} {
		stdout, _, _ := runCheck(t, append(flags, "--url", "http://"+proxy+"/events?user=42")...)
		want := blocks[2*i+1]
		if i == 1 {
			_, stdout, _ = strings.Cut(stdout, "\n\nurl ")
			stdout, _, _ = strings.Cut("url "+stdout, "\n\n")
		}
		got, want := changing.ReplaceAllString(strings.TrimSpace(stdout), "…"), changing.ReplaceAllString(strings.TrimSpace(want), "…")
		if got != want {
			t.Errorf("it prints\n%s\nand docs/check.md has\n%s", got, want)
		}
	}
}
