package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// A program is usercast in a process of its own.
type program struct {
	cmd            *exec.Cmd
	stdout, stderr output
	exited         chan struct{} // closed when the process has ended
}

// startProgram starts usercast; env is NAME=value. It is killed when the test ends.
func startProgram(t *testing.T, env []string, args ...string) *program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startProcess(t, env, self, args...)
}

func startProcess(t *testing.T, env []string, name string, args ...string) *program {
	t.Helper()
	p := &program{cmd: exec.Command(name, args...), exited: make(chan struct{})}
	// A program under the race detector would sleep for a second before it exits.
	p.cmd.Env = append(cleanEnviron(), asProgram+"=1", "GORACE=atexit_sleep_ms=0")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		p.signal(syscall.SIGKILL)
		<-p.exited
		if t.Failed() {
			t.Logf("%v wrote to stdout:\n%s\nto stderr:\n%s", args, p.stdout.tail(4000), p.stderr.tail(4000))
		}
	})
	return p
}

// cleanEnviron is the environment without what would configure a hub.
func cleanEnviron() (env []string) {
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "USERCAST_") {
			env = append(env, e)
		}
	}
	return env
}

func (p *program) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) } // it may have ended

// wait waits for the end and returns the exit code.
func (p *program) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		t.Fatal("the program does not end")
		return -1
	}
}

var listening = regexp.MustCompile(`msg=listening public=(\S+) admin=(\S+)`)

// serveProgram starts serve on free ports, waits until it is ready, and returns
// the addresses of its listeners.
func serveProgram(t *testing.T, server *redistest.Server, env []string, args ...string) (p *program, public, private string) {
	t.Helper()
	args = append([]string{"serve", "--auth", "insecure", "--redis", server.URL(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"}, args...)
	p = startProgram(t, env, args...)
	public, private = p.addresses(t)
	eventually(t, "the program is ready", func() bool {
		a, err := tryAsk("GET", "http://"+private+"/readyz") // the public listener may speak TLS
		return err == nil && a.code == 200
	})
	return p, public, private
}

func (p *program) addresses(t *testing.T) (public, private string) {
	t.Helper()
	eventually(t, "the program listens", func() bool {
		if m := listening.FindStringSubmatch(p.stderr.String()); m != nil {
			public, private = m[1], m[2]
		}
		select {
		case <-p.exited:
			t.Fatalf("the program ended: %s", &p.stderr)
		default:
		}
		return public != ""
	})
	return public, private
}

// runCommand is the program in this process, for commands that end by themselves.
func runCommand(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = run(args, strings.NewReader(stdin), &out, &err)
	return code, out.String(), err.String()
}

func TestBadUsageIsReportedAllAtOnce(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runCommand("", "serve",
		"--listen", "nowhere", "--admin-listen", "127.0.0.1:http-or-so", "--path", "events", "--allow-origin", "https://App.example/",
		"--channel-prefix", "", "--broadcast-user", "a:b", "--max-payload", "much", "--ping-interval", "15", "--write-timeout", "0s",
		"--retry=-1s", "--max-age=-1s", "--queue", "0", "--queue-bytes", "x", "--queue-total-bytes", "0", "--send-buffer", "1",
		"--max-clients=-1", "--max-clients-per-user", "many", "--drain-delay", "soon", "--drain=-1s",
		"--log-level", "loud", "--log-format", "xml", "--redis", "localhost:6379", "--admin-token-file", empty)
	if code != 2 || stdout != "" {
		t.Errorf("exit code %d, want 2; stdout %q", code, stdout)
	}
	lines := strings.Split(strings.TrimSuffix(stderr, "\n"), "\n")
	for _, flag := range []string{
		"listen", "admin-listen", "path", "allow-origin", "channel-prefix", "broadcast-user", "max-payload", "ping-interval", "write-timeout",
		"retry", "max-age", "queue", "queue-bytes", "queue-total-bytes", "send-buffer", "max-clients", "max-clients-per-user",
		"drain-delay", "drain", "log-level", "log-format", "redis", "admin-token-file", "auth",
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
	if len(lines) != 24 {
		t.Errorf("%d lines, want 24", len(lines))
	}
	if t.Failed() {
		t.Log(stderr)
	}
}

func TestBadUsageIsOnePlainLine(t *testing.T) {
	for _, test := range []struct {
		says string
		args []string
	}{
		{"serve", nil},
		{"unexpected argument", []string{"server"}},
		{"--lisen", []string{"serve", "--lisen", ":80"}},
		{"--auth: say who may read what", []string{"serve"}},
		{"is not a mode", []string{"serve", "--auth", "jtw"}},
		{"--auth: jwt needs one of", []string{"serve", "--auth", "jwt"}},
		{"--jwt-key-file: ", []string{"serve", "--auth", "jwt", "--jwt-key-file", os.DevNull}},
		{"--jwt-secret-file: ", []string{"serve", "--auth", "jwt", "--jwt-secret-file", os.DevNull}},
		{"--jwt-jwks-url: ", []string{"serve", "--auth", "jwt", "--jwt-jwks-url", "jwks.json"}},
		{"--jwt-issuer: is for --auth jwt", []string{"serve", "--auth", "insecure", "--jwt-issuer", "x"}},
		{"--forward-url: is needed", []string{"serve", "--auth", "forward"}},
		{"--forward-url: is not", []string{"serve", "--auth", "forward", "--forward-url", "http://127.0.0.1:99999/"}},
		{"--user-header: Cookie means something else", []string{"serve", "--auth", "header", "--trusted-proxy", "10.0.0.5", "--user-header", "Cookie"}},
		{"--user-header: content-length means", []string{"serve", "--auth", "forward", "--forward-url", "http://127.0.0.1/", "--user-header", "content-length"}},
		{"--user-header: is for --auth forward and header", []string{"serve", "--auth", "insecure", "--user-header", "X-Foo"}},
		{"--trusted-proxy: --auth header", []string{"serve", "--auth", "header"}},
		{"--trusted-proxy: ", []string{"serve", "--auth", "header", "--trusted-proxy", "10.0.0.0/33"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", "0.0.0.0:0"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", ":0"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", "[::]:0"}},
		{"--auth-insecure-anywhere", []string{"serve", "--auth", "insecure", "--listen", "10.0.0.1:0"}},
		{"--listen", []string{"dev", "--listen", "0.0.0.0:0"}},
		{"usercast:", []string{"serve", "--auth", "insecure", "--channel-prefix", "usercast:"}},
		{"the user is empty", []string{"publish", "", "x"}},
		{"the user is empty", []string{"publish", ":topic", "x"}},
		{"user[:topic]", []string{"publish"}},
		{"--admin-listen", []string{"health", "--admin-listen", "8081"}},
		{"--redis", []string{"publish", "--redis", "http://127.0.0.1", "42", "x"}},
		{"--redis: give one", []string{"publish", "--redis", "redis://127.0.0.1", "--redis", "redis://127.0.0.2", "42", "x"}},
		{"--admin-listen: must differ", []string{"serve", "--auth", "insecure", "--listen", "127.0.0.1:8080", "--admin-listen", "127.0.0.1:8080"}},
		{"--retry: must be from", []string{"serve", "--auth", "insecure", "--retry", "100us"}},
		{"--redis-password-file", []string{"publish", "--redis-password-file", "/nonexistent", "42", "x"}},
		{"unexpected argument", []string{"version", "now"}},
		{"--path: ", []string{"serve", "--auth", "insecure", "--path", "/a%20b"}},
		{"--send-buffer: must be from 4096 to", []string{"serve", "--auth", "insecure", "--send-buffer", "2000000000"}},
		{`--queue: "-1" looks like a flag`, []string{"serve", "--auth", "insecure", "--queue", "-1"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			code, stdout, stderr := runCommand("", test.args...)
			if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "usercast: ") || !strings.Contains(stderr, test.says) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want 2 and one line with %q", code, stdout, stderr, test.says)
			}
		})
	}
}

func TestInsecureElsewhereMustBeAskedFor(t *testing.T) {
	server := redistest.Start(t)
	p, _, _ := serveProgram(t, server, nil, "--listen", "0.0.0.0:0", "--auth-insecure-anywhere")
	p.signal(syscall.SIGINT)
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestTakenPortIsOnePlainLine(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for flag, other := range map[string]string{"--listen": "--admin-listen", "--admin-listen": "--listen"} {
		code, stdout, stderr := runCommand("", "serve", "--auth", "insecure", flag, l.Addr().String(), other, "127.0.0.1:0")
		if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 ||
			!strings.Contains(stderr, l.Addr().String()+": the port is taken") || !strings.HasSuffix(stderr, " "+flag+"\n") {
			t.Errorf("%s: exit code %d, stdout %q, stderr %q", flag, code, stdout, stderr)
		}
	}
	code, _, stderr := runCommand("", "serve", "--auth", "insecure", "--auth-insecure-anywhere", "--listen", "203.0.113.1:0")
	if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "cannot listen on 203.0.113.1:0 (--listen)") {
		t.Errorf("a foreign address: exit code %d, %q", code, stderr)
	}
}

func TestEveryFlagIsAnEnvironmentVariableToo(t *testing.T) {
	server := redistest.Start(t)
	p := startProgram(t, []string{
		"USERCAST_AUTH=insecure", "USERCAST_REDIS=" + server.URL(), "USERCAST_LISTEN=127.0.0.1:0", "USERCAST_ADMIN_LISTEN=127.0.0.1:0",
		"USERCAST_PATH=/stream", "USERCAST_CHANNEL_PREFIX=u-", "USERCAST_BROADCAST_USER=", "USERCAST_MAX_CLIENTS_PER_USER=1",
		"USERCAST_RETRY=7s", "USERCAST_ALLOW_ORIGIN=https://a.example,https://b.example", "USERCAST_LOG_LEVEL=debug",
	}, "serve", "--retry", "2s") // what the command line says wins
	public, private := p.addresses(t)
	eventually(t, "the program is ready", func() bool { return ask(t, "GET", "http://"+public+"/readyz").code == 200 })

	app := newPublisher(t, server.Addr())
	if n := app.publish(t, "u-42", "hello"); n != 1 {
		t.Error("the prefix is not taken from the environment")
	}
	if a := ask(t, "GET", "http://"+public+"/events?user=42"); a.code != 404 {
		t.Errorf("the path is not taken from the environment: %d", a.code)
	}
	for _, origin := range []string{"https://a.example", "https://b.example"} {
		if a := ask(t, "OPTIONS", "http://"+public+"/stream", "Origin: "+origin); a.code != 204 {
			t.Errorf("origin %s: %d", origin, a.code)
		}
	}
	app.publish(t, "u-*", "to nobody")
	eventually(t, "the broadcast is counted", func() bool {
		return scrape(t, "http://"+private+"/metrics").sum("usercast_messages_unrouted_total") == 2
	})
	conn := dialRaw(t, public)
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
	if a := ask(t, "GET", "http://"+public+"/stream?user=42"); a.code != 429 {
		t.Errorf("a second stream of the user: %d", a.code)
	}
	p.signal(syscall.SIGINT)
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, stderr := runCommand("", "version")
	if want := fmt.Sprintf(" %s %s/%s\n", runtime.Version(), runtime.GOOS, runtime.GOARCH); code != 0 || stderr != "" ||
		!strings.HasPrefix(stdout, "usercast ") || !strings.HasSuffix(stdout, want) {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestHelpIsThereAndTellsOfNothingThatIsNot(t *testing.T) {
	code, stdout, stderr := runCommand("", "--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	absent := map[string][]string{"dev": {"jwt", "forward", "trusted"}} // it asks nobody for a log-in
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
				t.Errorf("%s --help tells of %s", command, absent)
			}
		}
	}
}

func TestHealth(t *testing.T) {
	server := redistest.Start(t)
	server.Kill()
	h := runHub(t, newHub(t, server.URL()))
	health := func() (int, string, string) { return runCommand("", "health", "--admin-listen", h.AdminAddr()) }

	code, stdout, stderr := health()
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, h.AdminAddr()+" is not ready") {
		t.Errorf("before the first subscription: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	server.Restart()
	h.waitUntilSubscribed(t, 1)
	code, stdout, stderr = health()
	if code != 0 || stderr != "" || stdout != "ready\n" {
		t.Errorf("ready: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	_, port, _ := net.SplitHostPort(h.AdminAddr())
	if code, _, stderr := runCommand("", "health", "--admin-listen", ":"+port); code != 0 {
		t.Errorf("an address as the hub is given it: exit code %d, %q", code, stderr)
	}
	h.stop(errInterrupt)
	h.wait(t)
	code, stdout, stderr = health()
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "no answer from "+h.AdminAddr()) {
		t.Errorf("nobody there: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestPublish(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server)
	p, other := h.openPage(t, "user=42&event=topic"), h.openPage(t, "user=7")
	for _, test := range []struct {
		args        []string
		stdin       string
		channel     string
		name, data  string
		toOthersToo bool
	}{
		{[]string{"42:activity", `{"id":7}`}, "", "user-42:activity", "activity", `{"id":7}`, false},
		{[]string{"42", "hello"}, "unread", "user-42", "message", "hello", false},
		{[]string{"42", ""}, "unread", "user-42", "message", "", false},
		{[]string{"42", "-"}, "from stdin\n", "user-42", "message", "from stdin\n", false},
		{[]string{"42:a:b"}, "no argument", "user-42:a:b", "a:b", "no argument", false},
		{[]string{"42", "--", "--data"}, "", "user-42", "message", "--data", false},
		{[]string{"*", "to all"}, "", "user-*", "message", "to all", true},
		{[]string{"*:news", "to all"}, "", "user-*:news", "news", "to all", true},
	} {
		code, stdout, stderr := runCommand(test.stdin, append([]string{"publish", "--redis", server.URL()}, test.args...)...)
		if want := "published to " + test.channel + ", heard by 1 subscriber\n"; code != 0 || stdout != want || stderr != "" {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q", test.args, code, stdout, stderr)
		}
		p.wantEvent(t, test.name, test.data)
		if test.toOthersToo {
			other.want(t, test.data)
		}
	}
	hint := "usercast: hint: no hub received it; check that a hub runs, with the same --redis (" + server.Addr() + ") and --channel-prefix (other-)\n"
	if code, stdout, stderr := runCommand("", "publish", "--redis", server.URL(), "--channel-prefix", "other-", "42", "x"); code != 0 || stdout != "published to other-42, heard by 0 subscribers\n" || stderr != hint {
		t.Errorf("another prefix: exit code %d, %q, %q, want %q", code, stdout, stderr, hint)
	}
	server.Kill()
	code, stdout, stderr := runCommand("", "publish", "--redis", server.URL(), "42", "x")
	if code != 1 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, server.Addr()) {
		t.Errorf("unreachable Redis: exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestSignals(t *testing.T) {
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
			p, public, _ := serveProgram(t, server, nil, "--drain-delay", test.drain, "--drain", test.drain)
			stream, err := openPageAt(public, "user=42")
			if err != nil {
				t.Fatal(err)
			}
			defer stream.close()
			for i, sig := range test.signals {
				p.signal(sig)
				if i < len(test.signals)-1 {
					eventually(t, "the program is stopping", func() bool { return len(p.stderr.lines("msg=stopping")) == 1 })
				}
			}
			if code := p.wait(t); code != test.code {
				t.Errorf("exit code %d, want %d", code, test.code)
			}
			if test.code == 0 {
				stream.wantEvent(t, "bye", `{"reason":"draining"}`)
				stream.wantEnd(t)
			} else if n := len(p.stderr.lines("usercast: second signal")); n != 1 {
				t.Errorf("%d lines say why it ends at once", n)
			}
		})
	}
}

var (
	devURL  = regexp.MustCompile(`(?m)^\s+open\s+(http://\S+/)$`)
	devLine = regexp.MustCompile(`(?m)^\s+(?:try|or)\s+(.*)$`)
	devSees = regexp.MustCompile(`(?m)^\s+(?:console|metrics)\s+(http://\S+)$`)
)

// The lines to try are pasted into a shell, as a newcomer does.
func TestDevSaysWhatToOpenAndWhatToTry(t *testing.T) {
	// Redis' own port is taken now, by this test or by somebody else.
	if l, err := net.Listen("tcp", "127.0.0.1:6379"); err == nil {
		defer l.Close()
	}
	for _, prefix := range []string{defaultPrefix, "it's $HOME's [app]-*"} {
		t.Run(prefix, func(t *testing.T) {
			p := startProgram(t, nil, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--channel-prefix", prefix)
			var url []string
			var lines [][]string
			eventually(t, "dev says what to do", func() bool {
				url, lines = devURL.FindStringSubmatch(p.stdout.String()), devLine.FindAllStringSubmatch(p.stdout.String(), -1)
				return url != nil && len(lines) == 2
			})
			if a := ask(t, "GET", url[1]); a.code != 200 || !strings.Contains(a.body, "<html") {
				t.Errorf("the page: %d, %.200s", a.code, a.body)
			}
			sees := devSees.FindAllStringSubmatch(p.stdout.String(), -1)
			if len(sees) != 2 {
				t.Fatalf("dev names %q to look at, want console and metrics", sees)
			}
			if a := ask(t, "GET", sees[0][1]); a.code != 200 || !strings.Contains(a.body, "<title>usercast console</title>") {
				t.Errorf("the console: %d, %.200s", a.code, a.body)
			}
			if a := ask(t, "GET", sees[1][1]); a.code != 200 || !strings.Contains(a.body, "usercast_clients ") {
				t.Errorf("the metrics: %d, %.200s", a.code, a.body)
			}
			eventually(t, "dev is ready", func() bool { return ask(t, "GET", url[1]+"readyz").code == 200 })
			public := strings.TrimSuffix(strings.TrimPrefix(url[1], "http://"), "/")
			stream, err := openPageAt(public, "user=42")
			if err != nil {
				t.Fatal(err)
			}
			defer stream.close()

			try := shellWords(t, lines[0][1])
			if len(try) != 6 || try[0] != "redis-cli" || try[1] != "-p" || try[3] != "PUBLISH" {
				t.Fatalf("the line to try is %q", try)
			}
			if port, _ := strconv.Atoi(try[2]); port <= 6379 || port > 6379+100 {
				t.Errorf("the embedded Redis has port %s, want the next free one after 6379", try[2])
			}
			// What redis-cli would send.
			if n := newPublisher(t, "127.0.0.1:"+try[2]).publish(t, try[4], try[5]); n != 1 {
				t.Errorf("%d hubs heard the line to try", n)
			}
			stream.want(t, `{"kind":"comment","id":7}`)

			or := shellWords(t, lines[1][1])
			if code, stdout, stderr := runCommand("", or[1:]...); code != 0 || !strings.HasSuffix(stdout, ", heard by 1 subscriber\n") {
				t.Errorf("%q: exit code %d, %s%s", or, code, stdout, stderr)
			}
			stream.want(t, `{"kind":"comment","id":7}`)

			if note := "another program uses port 6379; publish to port " + try[2]; !strings.Contains(p.stdout.String(), note) {
				t.Errorf("no %q in\n%s", note, p.stdout.String())
			}

			p.signal(syscall.SIGTERM)
			if code := p.wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			stream.wantEvent(t, "bye", `{"reason":"draining"}`)
		})
	}
}

// The command to publish with that dev prints runs in the same shell, however usercast was started.
func TestDevPrintsACommandThatRuns(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Links, because what is printed depends on where the executable is.
	link := func(path string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), path)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if os.Link(self, file) == nil {
			return file
		}
		program, err := os.ReadFile(self) // another file system
		if err == nil {
			err = os.WriteFile(file, program, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		return file
	}
	cached := "3f/" + strings.Repeat("a0", 32) + "-d/usercast"
	elsewhere := t.TempDir()
	for name, c := range map[string]struct {
		exe   string
		dir   func(exe string) string
		begin string // of the command; EXE is the executable
		path  bool   // the executable is in PATH
	}{
		"installed":             {link("usercast"), func(string) string { return elsewhere }, "usercast publish ", true},
		"built":                 {link("bin/usercast"), func(exe string) string { return filepath.Dir(filepath.Dir(exe)) }, "./bin/usercast publish ", false},
		"built elsewhere":       {link("a folder/usercast"), func(string) string { return elsewhere }, "'EXE' publish ", false},
		"make run":              {link("go-build12/b001/exe/usercast"), func(string) string { return "../.." }, "go run ./cmd/usercast publish ", false},
		"make run, once more":   {link(cached), func(string) string { return "../.." }, "go run ./cmd/usercast publish ", false},
		"go run in the package": {link(cached), func(string) string { return "." }, "go run usercast/cmd/usercast", false},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			// A go that runs the executable in question, whichever way its package is named.
			script := "#!/bin/sh\n[ \"$1\" = run ] && shift 2 && exec '" + c.exe + "' \"$@\"\n"
			if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			path := bin + ":" + os.Getenv("PATH")
			if c.path {
				path = filepath.Dir(c.exe) + ":" + path
			}
			inDir := []string{"-c", `cd "$0" && exec "$@"`, c.dir(c.exe)}
			p := startProcess(t, []string{"PATH=" + path}, "/bin/sh", append(inDir, c.exe, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")...)
			var url []string
			var lines [][]string
			eventually(t, "dev prints what to do", func() bool {
				url, lines = devURL.FindStringSubmatch(p.stdout.String()), devLine.FindAllStringSubmatch(p.stdout.String(), -1)
				return url != nil && len(lines) == 2
			})
			if want := strings.ReplaceAll(c.begin, "EXE", c.exe); !strings.HasPrefix(lines[1][1], want) {
				t.Errorf("the command is %s, want %s…", lines[1][1], want)
			}
			eventually(t, "dev is ready", func() bool { return ask(t, "GET", url[1]+"readyz").code == 200 })
			publish := startProcess(t, []string{"PATH=" + path}, "/bin/sh", append(inDir, "/bin/sh", "-c", lines[1][1])...)
			if code := publish.wait(t); code != 0 || !strings.HasSuffix(publish.stdout.String(), ", heard by 1 subscriber\n") || publish.stderr.String() != "" {
				t.Errorf("exit code %d, %s%s", code, publish.stdout.String(), publish.stderr.String())
			}
		})
	}
}

// README shows what dev prints to users of make run.
func TestReadmeShowsWhatDevPrints(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	const command = `go run ./cmd/usercast publish --redis redis://127.0.0.1:6379 42:activity '{"kind":"comment","id":7}'`
	if !strings.Contains(string(readme), "\n      or       "+command+"\n") {
		t.Errorf("README does not show %s", command)
	}
	if without := regexp.MustCompile(`(?m)^\s+(go run ./cmd/)?usercast publish 42.*$`).FindString(string(readme)); without != "" {
		t.Errorf("this command publishes to port 6379 wherever the embedded Redis is: %s", without)
	}
}

// shellWords lets a shell take a line apart.
func shellWords(t *testing.T, line string) []string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `printf '%s\0' `+line).Output()
	if err != nil {
		t.Fatalf("a shell reads %s: %v", line, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

func TestLogCanBeJSON(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server, "--log-format", "json")
	h.openPage(t, "user=42").close()
	eventually(t, "the stream's end is logged", func() bool { return len(h.log.lines("stream ended")) == 1 })
	for line := range strings.Lines(h.log.String()) {
		var entry struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Time == "" || entry.Level == "" || entry.Msg == "" {
			t.Errorf("the log holds %q: %v", line, err)
		}
	}
}

// Under insecure any stranger names the user.
func TestLongUserDoesNotFillTheLog(t *testing.T) {
	h := startHub(t, redistest.Start(t))
	h.openPage(t, "user="+strings.Repeat("u", 7000)).close()
	eventually(t, "the stream's end is logged", func() bool { return len(h.log.lines("stream ended")) == 1 })
	if n := len(h.log.lines("stream ended")[0]); n > 500 {
		t.Errorf("a line of %d bytes", n)
	}
}
