//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package unixsocket

import "io/fs"

// lock does nothing: the system does not support flock.
func lock(string) (unlock func()) { return func() {} }

// restrict does nothing: the system does not support fchmod for sockets.
func restrict(uintptr, fs.FileMode) {}
