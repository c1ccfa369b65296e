// Package clients runs real client libraries and real browsers against the real hub, with
// faults in between, and checks that the client's callback receives each message exactly
// once.
//
// Each client is a process that prints one line per received event (testdata), or a page with a
// plain EventSource. Between it and the hub is a relay, which ends connections at chosen bytes.
//
//	started by                     what                          ended by
//	the test                       hub, client, browser          the test's cleanup
//	relay.start                    one goroutine for accepts     relay.stop
//	relay's accept goroutine       two goroutines per connection either end, or relay.stop
//
// The smoke tests run with make test. make clients runs all situations with all clients and prints
// the result as a table; make browsers does the same with the browsers.
package clients
