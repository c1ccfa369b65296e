package hubtest

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// Build returns the path of the program usercast, as the module is now. The first call in a process runs go
// build, which links only if something has changed since the last test run; all test binaries share the result.
// Where the test has the race detector, so has the program: go test has compiled most of it already. In short
// mode, Build skips the test.
func Build(tb testing.TB) string {
	tb.Helper()
	if testing.Short() {
		tb.Skip("runs the program")
	}
	program, err := build()
	if err != nil {
		tb.Fatal(err)
	}
	return program
}

var build = sync.OnceValues(func() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	if err := readSources(root); err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	args := []string{"build"}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	dir := filepath.Join(cache, "usercast-test", fmt.Sprintf("%x", sha256.Sum256([]byte(root+fmt.Sprint(args))))[:16])
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	program := filepath.Join(dir, "usercast")
	cmd := exec.Command("go", append(args, "-o", program, "./cmd/usercast")...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build usercast: %w\n%s", err, out)
	}
	return program, nil
})

// Root returns the directory of the module.
func Root(tb testing.TB) string {
	tb.Helper()
	root, err := moduleRoot()
	if err != nil {
		tb.Fatal(err)
	}
	return root
}

// ReadFile returns the text of a file of the module.
func ReadFile(tb testing.TB, path string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(Root(tb), path))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// moduleRoot returns the directory of go.mod of the module usercast.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "cmd", "usercast", "main.go")); err == nil {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the test does not run inside the module")
}

// readSources looks at the sources, which another process is about to read: go test takes note, and does not
// show a cached result when they have changed.
func readSources(root string) error {
	return filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		return err
	})
}
