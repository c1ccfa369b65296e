// Package hubtest runs hubs in tests of the whole program, and what surrounds them.
//
//	Start, New            a hub in this process, from the flags of serve
//	Serve, StartProgram   usercast as a process of its own
//	NewInstance           one process after the other at the same addresses
//	Main, StartHelper     a function of the test in a process of its own
//	NewPublisher          the app, as Redis sees it
//	Request, Scrape       one HTTP request; the metrics
//
// Everything that a test starts ends with it. A hub in this process must then return from Run, and its
// counters must add up (invariant 9); Main checks that no goroutine is left in the package (invariant 11).
//
// Methods that take a testing.TB fail it when they cannot do what they say.
package hubtest
