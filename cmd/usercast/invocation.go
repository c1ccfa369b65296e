package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

// builtByGoRun matches the path of an executable that go run has built, in a temporary directory or in the build cache.
var builtByGoRun = regexp.MustCompile(`/(go-build[0-9]+/b[0-9]+/exe|[0-9a-f]{2}/[0-9a-f]{64}-d)/[^/]+$`)

// invocation returns the shell words that run this program from the current directory. Printed commands must also work
// with go run, where usercast is not in PATH.
func invocation() string {
	exe, err := os.Executable()
	if err != nil {
		return "usercast"
	}
	if found, err := exec.LookPath("usercast"); err == nil && sameFile(found, exe) {
		return "usercast"
	}
	if builtByGoRun.MatchString(filepath.ToSlash(exe)) {
		if _, err := os.Stat("cmd/usercast/main.go"); err == nil {
			return "go run ./cmd/usercast"
		}
		if info, ok := debug.ReadBuildInfo(); ok && info.Path != "" { // a package path works in every directory of the module
			return "go run " + info.Path
		}
	}
	if dir, err := os.Getwd(); err == nil {
		if path, err := filepath.Rel(dir, exe); err == nil && !strings.HasPrefix(path, "..") {
			return shellWord("./" + filepath.ToSlash(path))
		}
	}
	return shellWord(exe)
}

func sameFile(a, b string) bool {
	first, err := os.Stat(a)
	if err != nil {
		return false
	}
	second, err := os.Stat(b)
	return err == nil && os.SameFile(first, second)
}
