package unixsocket_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"usercast/internal/unixsocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParse(t *testing.T) {
	t.Parallel()
	longest := "/" + strings.Repeat("x", len(syscall.RawSockaddrUnix{}.Path)-2)
	for address, want := range map[string]unixsocket.Address{
		"unix:/run/usercast.sock":            {Path: "/run/usercast.sock", Mode: 0o660},
		"unix:///run/usercast.sock":          {Path: "/run/usercast.sock", Mode: 0o660},
		"unix:usercast.sock":                 {Path: "usercast.sock", Mode: 0o660},
		"unix:/run/usercast.sock?mode=666":   {Path: "/run/usercast.sock", Mode: 0o666},
		"unix:/run/usercast.sock?mode=0600":  {Path: "/run/usercast.sock", Mode: 0o600},
		"unix:/run/usercast.sock?mode=0o600": {},
		"unix:/run/usercast.sock?":           {Path: "/run/usercast.sock", Mode: 0o660},
		"unix:" + longest:                    {Path: longest, Mode: 0o660},
		"unix:/run/a:8080":                   {Path: "/run/a:8080", Mode: 0o660},
	} {
		if got, err := unixsocket.Parse(address); got != want || (err != nil) != (want.Path == "") {
			t.Errorf("%q is %+v, %v; want %+v", address, got, err, want)
		}
	}
	for address, want := range map[string]string{
		"unix:":                          "path of a socket is missing",
		"unix://":                        "path of a socket is missing",
		"unix://localhost/run/a":         "path of a socket is missing",
		"unix:/run/":                     "path of a socket is missing",
		"unix:?mode=660":                 "path of a socket is missing",
		"unix:@usercast":                 "abstract",
		"unix:/run/a\x00b":               "NUL",
		"unix:" + longest + "x":          "allows at most",
		"unix:/run/a?mode=":              "invalid mode",
		"unix:/run/a?mode=rw":            "invalid mode",
		"unix:/run/a?mode=888":           "invalid mode",
		"unix:/run/a?mode=1777":          "invalid mode",
		"unix:/run/a?mode=-1":            "invalid mode",
		"unix:/run/a?mode=444":           "write permission",
		"unix:/run/a?mode=600&mode=666":  "only ?mode=",
		"unix:/run/a?group=www-data":     `unknown parameter "group"`,
		"unix:/run/a?mode=600&owner=you": `unknown parameter "owner"`,
		"unix:/run/a?%zz":                "only ?mode=",
		"127.0.0.1:8080":                 "does not begin with unix:",
	} {
		if a, err := unixsocket.Parse(address); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is %+v, %v; want an error with %q", address, a, err, want)
		}
	}
}

func listen(t *testing.T, path string, mode fs.FileMode) *unixsocket.Listener {
	t.Helper()
	l, err := unixsocket.Listen(context.Background(), unixsocket.Address{Path: path, Mode: mode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestSocketHasItsModeAndIsRemoved(t *testing.T) {
	t.Parallel()
	for _, mode := range []fs.FileMode{0o600, 0o660, 0o666} {
		path := filepath.Join(t.TempDir(), "s")
		l := listen(t, path, mode)
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != fs.ModeSocket|mode {
			t.Errorf("the mode is %v, %v; want %v", info.Mode(), err, mode)
		}
		if got := l.Addr().String(); got != "unix:"+path {
			t.Errorf("the address is %s", got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// staleSocket creates the socket of a process that was killed.
func staleSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
}

func TestStaleSocketIsReplaced(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	staleSocket(t, path)
	listen(t, path, 0o600)
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestOtherFilesAreNotReplaced(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	live, file, link, datagram := filepath.Join(dir, "live"), filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "datagram")
	listen(t, live, 0o600)
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), os.Symlink(filepath.Join(dir, "missing"), link)); err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: datagram})
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	for path, want := range map[string]string{
		live: unixsocket.ErrInUse.Error(), file: "not a socket; remove it", link: "not a socket; remove it", datagram: "unknown",
		filepath.Join(dir, "missing", "s"): "does not exist; create it",
	} {
		before, _ := os.Lstat(path)
		if _, err := unixsocket.Listen(context.Background(), unixsocket.Address{Path: path, Mode: 0o600}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
		if after, _ := os.Lstat(path); before != nil && !os.SameFile(before, after) {
			t.Errorf("%s was replaced", path)
		}
	}
}

// Of several processes that start at the same time, exactly one listens, and clients can reach it.
func TestOnlyOneOfManyReplacesAStaleSocket(t *testing.T) {
	t.Parallel()
	for range 20 {
		path := filepath.Join(t.TempDir(), "s")
		staleSocket(t, path)
		var starting sync.WaitGroup
		listeners := make(chan *unixsocket.Listener, 10)
		for range cap(listeners) {
			starting.Go(func() {
				l, err := unixsocket.Listen(context.Background(), unixsocket.Address{Path: path, Mode: 0o600})
				if err == nil {
					listeners <- l
				} else if !errors.Is(err, unixsocket.ErrInUse) {
					t.Error(err)
				}
			})
		}
		starting.Wait()
		close(listeners)
		if len(listeners) != 1 {
			t.Fatalf("%d processes listen, want 1", len(listeners))
		}
		l := <-listeners
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		l.Close()
	}
}

// A socket that another process has created in the meantime stays.
func TestCloseKeepsAnotherSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	first := listen(t, path, 0o600)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	listen(t, path, 0o600)
	first.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
