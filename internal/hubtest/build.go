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

// Build builds the program usercast from the current sources and returns its path. Only the first call in a process
// runs go build, which links only if the sources have changed since the last test run. All test binaries share the
// result. If the test runs with the race detector, so does the program, because go test has already compiled most of
// it. In short mode, Build skips the test.
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

// readSources reads the list of source files, so that go test does not use a cached result when they have changed: it
// does not notice that go build reads them.
func readSources(root string) error {
	return filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules") {
			return filepath.SkipDir
		}
		return err
	})
}
