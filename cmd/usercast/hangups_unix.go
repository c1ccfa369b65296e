//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// ignorePipes keeps the process alive when nothing reads its stdout or stderr any more:
// writing returns an error then, as with every other file.
func ignorePipes() { signal.Ignore(syscall.SIGPIPE) }

// hangUps delivers SIGHUP, which ends the process no longer. Several that come while
// nobody takes them are one.
func hangUps() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
