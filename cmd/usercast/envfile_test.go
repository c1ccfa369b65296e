package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"usercast/internal/app"
	"usercast/internal/flags"
)

// parseWithFile parses a command line of serve with an env file.
func parseWithFile(t *testing.T, file string, args ...string) *app.HubConfig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "usercast.env")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := parseServe(append([]string{"serve", "--env-file", path}, args...))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPrecedenceOfCommandLineEnvironmentAndFile(t *testing.T) {
	t.Setenv("USERCAST_RETRY", "2s")
	t.Setenv("USERCAST_LOG_LEVEL", "warn")
	c := parseWithFile(t, `
USERCAST_LOG_LEVEL=debug
USERCAST_RETRY=1s
USERCAST_PATH=/stream
USERCAST_JWT_QUERY=true
USERCAST_ALLOW_ORIGIN=https://a.example,https://b.example
USERCAST_REDIS=redis+sentinel://h1,h2/mymaster
USERCAST_MAX_CLIENTS=7
USERCAST_JWT_SECRET=x
`, "--log-level", "error")
	if c.LogLevel != "error" || c.Retry.T.String() != "2s" || c.Path != "/stream" || !c.JWTQuery || c.MaxClients.T != 7 ||
		!slices.Equal(c.AllowOrigin, []string{"https://a.example", "https://b.example"}) ||
		!slices.Equal(c.Redis, []string{"redis+sentinel://h1,h2/mymaster"}) || c.Settings.Variable(flags.JWTSecretVariable) != "x" || c.Queue.T != 1024 {
		t.Errorf("%+v", c)
	}
	t.Setenv("USERCAST_JWT_SECRET", "y")
	if secret := c.Settings.Variable(flags.JWTSecretVariable); secret != "y" {
		t.Error("the secret in the file takes precedence over the environment")
	}
	// Values that are overridden elsewhere do not count as changed.
	same := parseWithFile(t, "USERCAST_LOG_LEVEL=info\nUSERCAST_RETRY=5s\nUSERCAST_PATH=/other\n", "--log-level", "error")
	if changed := same.Settings.Changed(c.Settings); slices.Contains(changed, "USERCAST_LOG_LEVEL") || slices.Contains(changed, "USERCAST_RETRY") ||
		!slices.Contains(changed, "USERCAST_PATH") || !slices.Contains(changed, "USERCAST_MAX_CLIENTS") {
		t.Errorf("changed: %v", changed)
	}
}

func TestInvalidEnvFileIsReportedInOneLine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "usercast.env")
	for file, want := range map[string]string{
		"nonsense":                       "usercast.env: line 1: expected NAME=value",
		"USERCAST_LISTEM=:80":            "usercast.env: line 1: unknown setting USERCAST_LISTEM",
		"USERCAST_ENV_FILE=other":        "usercast.env: line 1: unknown setting USERCAST_ENV_FILE",
		"GOMEMLIMIT=1GiB":                `the name "GOMEMLIMIT" must start with USERCAST_`,
		"USERCAST_STREAMS=1":             "unknown setting USERCAST_STREAMS", // a flag of bench
		"USERCAST_AUTH=insecure\nU='x'y": "line 2",
	} {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := runCommand("", "serve", "--env-file", path)
		if code != 2 || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "usercast: --env-file: ") || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want 2 and one line with %q", file, code, stdout, stderr, want)
		}
	}
	t.Setenv("USERCAST_ENV_FILE", filepath.Join(dir, "missing"))
	if code, _, stderr := runCommand("", "serve"); code != 2 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "--env-file: open ") {
		t.Errorf("a missing file: exit code %d, %q", code, stderr)
	}
}

// The example in deploy/systemd is valid, including its commented settings, except for those that name files.
func TestExampleEnvFileIsValid(t *testing.T) {
	text, err := os.ReadFile("../../deploy/systemd/usercast.env")
	if err != nil {
		t.Fatal(err)
	}
	all := regexp.MustCompile(`(?m)^# (USERCAST_[A-Z_]+=)`).ReplaceAllString(string(text), "$1")
	c := parseWithFile(t, regexp.MustCompile(`(?m)^.*=/etc/usercast/.*\n`).ReplaceAllString(all, ""))
	var errs flags.Errors
	c.Config.Check(&errs)
	c.Servers(&errs)
	c.AuthConfig.Check(&errs, c.Listen)
	if err := errs.Err(); err != nil || c.Auth != app.AuthForward || len(c.AllowOrigin) != 0 {
		t.Errorf("%v, %q, %q", err, c.Auth, c.AllowOrigin)
	}
	if whole := parseWithFile(t, all); whole.TLSKey != "/etc/usercast/tls.key" || whole.RedisPasswordFile == "" {
		t.Errorf("%+v", whole)
	}
}

// Unknown variables in the environment are ignored, so the chart must not set any.
func TestChartSetsOnlyKnownVariables(t *testing.T) {
	chart, err := os.ReadFile("../../deploy/helm/usercast/templates/_helpers.tpl")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`"(USERCAST_[A-Z_]+)"`).FindAllStringSubmatch(string(chart), -1)
	settings := make(map[string]string)
	for _, name := range names {
		settings[name[1]] = "1"
	}
	delete(settings, "USERCAST_ENV_FILE") // not allowed in a file
	if len(settings) < 20 {
		t.Fatalf("found only %d variables in the chart", len(settings))
	}
	var file strings.Builder
	for name, value := range settings {
		file.WriteString(name + "=" + value + "\n")
	}
	parseWithFile(t, file.String())
}

// check has flags that serve does not have. Both reject a file with such a flag.
func TestCheckRejectsEnvFilesThatServeRejects(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usercast.env")
	for _, line := range []string{"USERCAST_JSON=true", "USERCAST_URL=http://127.0.0.1:1/events", "USERCAST_ENV_FILE=other"} {
		if err := os.WriteFile(path, []byte("USERCAST_AUTH=jwt\n"+line), 0o600); err != nil {
			t.Fatal(err)
		}
		name, _, _ := strings.Cut(line, "=")
		for command, wanted := range map[string]int{"serve": 2, "check": 1} {
			code, stdout, stderr := runCommand("", command, "--env-file", path)
			if want := "unknown setting " + name; code != wanted || !strings.Contains(stdout+stderr, want) {
				t.Errorf("%s with %s: exit %d, want %d and %q\n%s%s", command, name, code, wanted, want, stdout, stderr)
			}
		}
	}
}

// People write lists with spaces after the commas, also in files.
func TestListsAcceptSpacesAfterCommas(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "env")
	if err := os.WriteFile(file, []byte("USERCAST_ALLOW_ORIGIN=https://a.example, https://b.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	origins := []string{"https://a.example", "https://b.example"}
	for _, args := range [][]string{
		{"serve", "--allow-origin", "https://a.example, https://b.example"},
		{"serve", "--allow-origin", " https://a.example ", "--allow-origin", "https://b.example"},
		{"serve", "--env-file", file},
	} {
		var cli commands
		if _, err := parse(&cli, args); err != nil || !slices.Equal(cli.Serve.AllowOrigin, origins) {
			t.Errorf("%v: %q, %v", args, cli.Serve.AllowOrigin, err)
		}
	}
	var cli commands
	header := "Cookie: a=1, b=2 "
	if _, err := parse(&cli, []string{"check", "--header", header}); err != nil || !slices.Equal(cli.Check.Header, []string{header}) {
		t.Errorf("--header: %q, %v", cli.Check.Header, err)
	}
}
