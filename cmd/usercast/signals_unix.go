//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// ignorePipes keeps the process running after the reader of its stdout or stderr has exited. Writes then return an error,
// as with other files.
func ignorePipes() { signal.Ignore(syscall.SIGPIPE) }

// hangUps delivers SIGHUP, which then no longer ends the process. Signals that arrive before the previous one is received
// are merged.
func hangUps() (signals <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
