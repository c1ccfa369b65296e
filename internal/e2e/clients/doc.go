// Package clients runs real client libraries and real browsers against the real hub, injects
// failures, and checks that the client's callback receives each message exactly
// once.
//
// Each client is a process that prints one line per received event (testdata), or a page with a
// plain EventSource. A relay between it and the hub closes connections at chosen bytes.
//
//	started by                     what                          ended by
//	the test                       hub, client, browser          cleanup of the test
//	relay.start                    accept goroutine              relay.stop
//	accept goroutine               two goroutines per connection either peer, or relay.stop
//
// The smoke tests run with make test. make clients runs all situations with all clients and prints
// the result as a table; make browsers does the same with the browsers.
package clients
