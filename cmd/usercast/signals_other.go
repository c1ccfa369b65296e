//go:build !unix

package main

import "os"

// hangUps never delivers a signal: this system has no SIGHUP. See --reload-every.
func hangUps() (signals <-chan os.Signal, stop func()) { return nil, func() {} }

// ignorePipes is needed on Unix only.
func ignorePipes() {}
