// Package ssetest opens event streams in tests and states what arrives on them.
//
// A Stream belongs to one goroutine at a time, and starts none. Methods that take a testing.TB fail it; the
// others return an error, for goroutines of their own. A read waits for Patience at most.
package ssetest
