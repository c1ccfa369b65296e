//go:build !unix

package main

import "os"

// hangUps never delivers a signal, because this platform does not support SIGHUP. See --reload-every.
func hangUps() (signals <-chan os.Signal, stop func()) { return nil, func() {} }

// ignorePipes does nothing, because this platform does not have SIGPIPE.
func ignorePipes() {}
