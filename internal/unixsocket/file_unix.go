//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package unixsocket

import (
	"io/fs"
	"os"
	"syscall"
	"time"
)

// lock locks a directory among the processes that call lock, and returns a function that unlocks it. It waits for at most
// a second, because any user that can read the directory can hold the lock. Without the permission to read the directory,
// it does not lock.
func lock(dir string) (unlock func()) {
	d, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for start := time.Now(); syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == syscall.EWOULDBLOCK && time.Since(start) < time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	return func() { _ = d.Close() }
}

// restrict sets the mode of a socket. Not every system supports it; the error does not matter.
func restrict(fd uintptr, mode fs.FileMode) { _ = syscall.Fchmod(int(fd), uint32(mode)) }
