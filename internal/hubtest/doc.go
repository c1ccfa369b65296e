// Package hubtest runs hubs, and the processes around them, in tests of the whole program.
//
//	Start, New            a hub in this process, from the flags of serve
//	Serve, StartProgram   the program usercast as a separate process
//	NewInstance           one process after the other at the same addresses
//	Main, StartHelper     a function of the test in a separate process
//	NewPublisher          publishes to Redis as an app does
//	Request, Scrape       one HTTP request; the metrics
//
// Everything that a test starts ends with the test. A hub in this process must then return from Run, and its
// counters must add up (invariant 9). Main checks that no goroutine is left (invariant 11).
//
// Methods with a testing.TB parameter fail the test on an error.
package hubtest
