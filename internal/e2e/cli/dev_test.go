package cli

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/ssetest"
)

var (
	devURL  = regexp.MustCompile(`(?m)^\s+open\s+(http://\S+/)$`)
	devLine = regexp.MustCompile(`(?m)^\s+(?:try|or)\s+(.*)$`)
	devSees = regexp.MustCompile(`(?m)^\s+(?:console|metrics)\s+(http://\S+)$`)
)

// The commands that dev prints are passed to a shell, as a new user does.
func TestDevPrintsURLsAndCommands(t *testing.T) {
	t.Parallel()
	// Port 6379 is in use during this test. If another program uses it, that program may exit before dev starts.
	l, err := net.Listen("tcp", "127.0.0.1:6379")
	held := err == nil
	if held {
		defer l.Close()
	}
	for _, prefix := range []string{app.DefaultPrefix, "it's $HOME's [app]-*"} {
		t.Run(prefix, func(t *testing.T) {
			p := hubtest.StartProgram(t, nil, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--channel-prefix", prefix)
			var url []string
			var lines [][]string
			hubtest.Eventually(t, "dev prints what to do", func() bool {
				url, lines = devURL.FindStringSubmatch(p.Stdout.String()), devLine.FindAllStringSubmatch(p.Stdout.String(), -1)
				return url != nil && len(lines) == 2
			})
			if a := hubtest.Request(t, "GET", url[1]); a.Status != 200 || !strings.Contains(a.Body, "<html") {
				t.Errorf("the page: %d, %.200s", a.Status, a.Body)
			}
			sees := devSees.FindAllStringSubmatch(p.Stdout.String(), -1)
			if len(sees) != 2 {
				t.Fatalf("dev prints the URLs %q, want console and metrics", sees)
			}
			if a := hubtest.Request(t, "GET", sees[0][1]); a.Status != 200 || !strings.Contains(a.Body, "<title>usercast console</title>") {
				t.Errorf("the console: %d, %.200s", a.Status, a.Body)
			}
			if a := hubtest.Request(t, "GET", sees[1][1]); a.Status != 200 || !strings.Contains(a.Body, "usercast_clients ") {
				t.Errorf("the metrics: %d, %.200s", a.Status, a.Body)
			}
			hubtest.Eventually(t, "dev is ready", func() bool { return hubtest.Request(t, "GET", url[1]+"readyz").Status == 200 })
			public := strings.TrimSuffix(strings.TrimPrefix(url[1], "http://"), "/")
			stream, err := ssetest.Open(public, "user=42")
			if err != nil {
				t.Fatal(err)
			}
			defer stream.Close()

			try := shellWords(t, lines[0][1])
			if len(try) != 6 || try[0] != "redis-cli" || try[1] != "-p" || try[3] != "PUBLISH" {
				t.Fatalf("the command to try is %q", try)
			}
			port, _ := strconv.Atoi(try[2])
			if first := 6379; port < first || port == first && held || port > first+100 {
				t.Errorf("the embedded Redis has port %s, want the next free one after %d", try[2], first)
			}
			// What redis-cli would send.
			if n := hubtest.NewPublisher(t, "127.0.0.1:"+try[2]).Publish(t, try[4], try[5]); n != 1 {
				t.Errorf("%d hubs received the message of the command to try", n)
			}
			stream.Want(t, `{"kind":"comment","id":7}`)

			or := shellWords(t, lines[1][1])
			if code, stdout, stderr := hubtest.RunCommand(t, or[1:]...); code != 0 || !strings.HasSuffix(stdout, ", received by 1 subscriber\n") {
				t.Errorf("%q: exit code %d, %s%s", or, code, stdout, stderr)
			}
			stream.Want(t, `{"kind":"comment","id":7}`)

			note := "another program uses port 6379; publish to port " + try[2]
			if noted := strings.Contains(p.Stdout.String(), note); noted != (port != 6379) {
				t.Errorf("output contains %q: %t\n%s", note, noted, p.Stdout.String())
			} else if noted && strings.Index(p.Stdout.String(), note) < strings.Index(p.Stdout.String(), "  metrics  ") {
				t.Errorf("the note is not below the lines that it refers to:\n%s", p.Stdout.String())
			}

			p.Signal(syscall.SIGTERM)
			if code := p.Wait(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			stream.WantEvent(t, "bye", `{"reason":"draining"}`)
		})
	}
}

// Groups are off unless --group-prefix is set, here in the environment.
func TestDevServesGroups(t *testing.T) {
	t.Parallel()
	for _, env := range [][]string{{"USERCAST_GROUP_PREFIX=team-", "USERCAST_MAX_GROUPS=2"}, nil} {
		p := hubtest.StartProgram(t, env, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")
		var url, try []string
		hubtest.Eventually(t, "dev prints what to do", func() bool {
			url, try = devURL.FindStringSubmatch(p.Stdout.String()), devLine.FindStringSubmatch(p.Stdout.String())
			return url != nil && try != nil
		})
		hubtest.Eventually(t, "dev is ready", func() bool { return hubtest.Request(t, "GET", url[1]+"readyz").Status == 200 })
		redis := "127.0.0.1:" + shellWords(t, try[1])[2]
		const three = "events?user=42&group=a&group=b&group=c"
		query, groups := "user=42&group=a&group=b", len(env) > 0
		if !groups {
			query = strings.TrimPrefix(three, "events?")
		} else if a := hubtest.Request(t, "GET", url[1]+three); a.Status != 403 || !strings.Contains(a.Body, "3 groups, and at most 2") {
			t.Errorf("three groups: %d %s", a.Status, a.Body)
		}
		stream, err := ssetest.Open(strings.TrimSuffix(strings.TrimPrefix(url[1], "http://"), "/"), query)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		if groups {
			code, stdout, stderr := hubtest.RunCommand(t, "publish", "--redis", "redis://"+redis, "--group-prefix", "team-", "--group", "b:news", "for b")
			if code != 0 || !strings.Contains(stdout, "published to team-b:news, received by 1 subscriber") {
				t.Errorf("publish: exit code %d, %s%s", code, stdout, stderr)
			}
			stream.Want(t, "for b")
		} else if n := hubtest.NewPublisher(t, redis).Publish(t, "team-b", "for b"); n != 0 {
			t.Errorf("%d hubs received a message for a group", n)
		}
		hubtest.NewPublisher(t, redis).Publish(t, "user-42", "for 42")
		stream.Want(t, "for 42")
	}
}

// The publish command that dev prints works in the same shell, whichever way usercast was started.
func TestDevPrintsWorkingPublishCommand(t *testing.T) {
	t.Parallel()
	self, root := hubtest.Build(t), hubtest.Root(t)
	// Hard links, because the command depends on the path of the executable.
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
		begin string // of the command; EXE stands for the path of the executable
		path  bool   // the executable is in PATH
	}{
		"installed":             {link("usercast"), func(string) string { return elsewhere }, "usercast publish ", true},
		"built":                 {link("bin/usercast"), func(exe string) string { return filepath.Dir(filepath.Dir(exe)) }, "./bin/usercast publish ", false},
		"built elsewhere":       {link("a folder/usercast"), func(string) string { return elsewhere }, "'EXE' publish ", false},
		"make run":              {link("go-build12/b001/exe/usercast"), func(string) string { return root }, "go run ./cmd/usercast publish ", false},
		"make run, once more":   {link(cached), func(string) string { return root }, "go run ./cmd/usercast publish ", false},
		"go run in the package": {link(cached), func(string) string { return filepath.Join(root, "cmd", "usercast") }, "go run usercast/cmd/usercast", false},
	} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			// A command "go" that runs this executable for any name of its package.
			script := "#!/bin/sh\n[ \"$1\" = run ] && shift 2 && exec '" + c.exe + "' \"$@\"\n"
			if err := os.WriteFile(filepath.Join(bin, "go"), []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			path := bin + ":" + os.Getenv("PATH")
			if c.path {
				path = filepath.Dir(c.exe) + ":" + path
			}
			inDir := []string{"-c", `cd "$0" && exec "$@"`, c.dir(c.exe)}
			p := hubtest.StartProcess(t, []string{"PATH=" + path}, "/bin/sh", append(inDir, c.exe, "dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0")...)
			var url []string
			var lines [][]string
			hubtest.Eventually(t, "dev prints what to do", func() bool {
				url, lines = devURL.FindStringSubmatch(p.Stdout.String()), devLine.FindAllStringSubmatch(p.Stdout.String(), -1)
				return url != nil && len(lines) == 2
			})
			if want := strings.ReplaceAll(c.begin, "EXE", c.exe); !strings.HasPrefix(lines[1][1], want) {
				t.Errorf("the command is %s, want %s…", lines[1][1], want)
			}
			hubtest.Eventually(t, "dev is ready", func() bool { return hubtest.Request(t, "GET", url[1]+"readyz").Status == 200 })
			publish := hubtest.StartProcess(t, []string{"PATH=" + path}, "/bin/sh", append(inDir, "/bin/sh", "-c", lines[1][1])...)
			if code := publish.Wait(t); code != 0 || !strings.HasSuffix(publish.Stdout.String(), ", received by 1 subscriber\n") || publish.Stderr.String() != "" {
				t.Errorf("exit code %d, %s%s", code, publish.Stdout.String(), publish.Stderr.String())
			}
		})
	}
}

// shellWords returns the words into which a shell splits a line.
func shellWords(t *testing.T, line string) []string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `printf '%s\0' `+line).Output()
	if err != nil {
		t.Fatalf("a shell reads %s: %v", line, err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}
