// Package ssetest opens event streams in tests and checks what arrives on them.
//
// A Stream belongs to one goroutine at a time, and starts none. Methods with a testing.TB parameter fail the
// test on an error; the others return it, so that other goroutines can call them. A read waits for Patience at most.
package ssetest
