//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// ignorePipes keeps the process alive when nothing reads its stdout or stderr any longer:
// writing then returns an error, as with other files.
func ignorePipes() { signal.Ignore(syscall.SIGPIPE) }

// hangUps delivers SIGHUP, which no longer ends the process. Several of them become one
// until it is received.
func hangUps() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
