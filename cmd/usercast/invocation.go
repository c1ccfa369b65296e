package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
)

// builtByGoRun matches the executables of go run: in a temporary folder, or in Go's build cache.
var builtByGoRun = regexp.MustCompile(`/(go-build[0-9]+/b[0-9]+/exe|[0-9a-f]{2}/[0-9a-f]{64}-d)/[^/]+$`)

// invocation is how this program is run from the current directory, in words for a shell: commands
// that are printed must work for users of go run, who have no usercast in PATH.
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
		if info, ok := debug.ReadBuildInfo(); ok && info.Path != "" { // a package path works in the whole module
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
