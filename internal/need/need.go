// Package need skips tests whose external programs are missing.
//
// A test states its requirement: a program in PATH, a command that must succeed, or a file. In short mode
// (go test -short) each function skips the test, even if the requirement is met. Otherwise, a test with a missing
// requirement fails if CI=true is set in the environment, and is skipped if not. For a skipped test, a line with the
// install command is appended to the file in the environment variable NEED_REPORT. make test prints that file at its end.
package need

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// packages lists the Debian packages of programs for which the package has another name than the program.
var packages = map[string]string{
	"WebKitWebDriver": "webkit2gtk-driver",
	"Xvfb":            "xvfb",
	"apache2":         "apache2-bin",
	"ip":              "iproute2",
	"lighttpd":        "lighttpd lighttpd-mod-openssl",
	"nginx":           "nginx-light",
	"node":            "nodejs",
	"php":             "php-cli",
	"promtool":        "prometheus",
	"redis-cli":       "redis-tools",
	"systemd-analyze": "systemd",
}

// Program returns the path of the first of names that is in PATH or in /usr/sbin. If all of them are missing, it skips the
// test and reports the first name as missing.
func Program(tb testing.TB, names ...string) (path string) {
	tb.Helper()
	short(tb)
	path, ok := find(names)
	if !ok {
		Missing(tb, names[0], install(names[0]))
	}
	return path
}

// Optional reports whether a program exists, for a test that can leave out some of its cases. With CI=true it fails the
// test if the program is missing.
func Optional(tb testing.TB, names ...string) bool {
	tb.Helper()
	short(tb)
	if _, ok := find(names); ok {
		return true
	}
	report(tb, names[0], install(names[0]))
	return false
}

// Command skips the test unless a command exits with status 0, for example one that imports a library. Packages are the
// Debian packages that provide it.
func Command(tb testing.TB, packages string, name string, args ...string) {
	tb.Helper()
	short(tb)
	if exec.Command(name, args...).Run() != nil {
		Missing(tb, packages, "apt-get install "+packages)
	}
}

// File skips the test unless a file exists. Install is the command that creates it.
func File(tb testing.TB, path, install string) {
	tb.Helper()
	short(tb)
	if _, err := os.Stat(path); err != nil {
		Missing(tb, path, install)
	}
}

// OptionalFile is like Optional, for a file. Install is the command that creates it.
func OptionalFile(tb testing.TB, path, install string) bool {
	tb.Helper()
	short(tb)
	if _, err := os.Stat(path); err == nil {
		return true
	}
	report(tb, path, install)
	return false
}

// Missing skips the test because of a missing requirement, or fails it with CI=true. Install is the install command.
func Missing(tb testing.TB, what, install string) {
	tb.Helper()
	short(tb)
	report(tb, what, install)
	tb.Skipf("%s is missing: %s", what, install)
}

func short(tb testing.TB) {
	tb.Helper()
	if testing.Short() {
		tb.Skip("needs external programs")
	}
}

func find(names []string) (path string, ok bool) {
	for _, name := range names {
		for _, candidate := range []string{name, "/usr/sbin/" + name} {
			if path, err := exec.LookPath(candidate); err == nil {
				return path, true
			}
		}
	}
	return "", false
}

func install(program string) (command string) {
	if p, ok := packages[program]; ok {
		program = p
	}
	return "apt-get install " + program
}

// report fails the test with CI=true, and otherwise appends a line to the file in NEED_REPORT. The variable is read only
// here: go test caches results by the variables that a test has read, so the results of other tests stay cached.
func report(tb testing.TB, what, install string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("%s is missing: %s", what, install)
	}
	name := os.Getenv("NEED_REPORT")
	if name == "" {
		return
	}
	file, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	// A single write, so that lines of packages that are tested in parallel are not mixed.
	if _, err := fmt.Fprintf(file, "%s\t%s\t%s\n", what, install, strings.ReplaceAll(tb.Name(), "\t", " ")); err != nil {
		tb.Fatal(err)
	}
}
