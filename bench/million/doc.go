// Command million measures real streams beyond the descriptors of one process: for
// each total, as many hubs as it takes, a redis-server, and one usercast bench for each
// hub, that opens streams there and publishes to them.
//
//	go run ./bench/million                       1,000 to 100,000 streams: some five minutes
//	go run ./bench/million --streams 50000       one total
//
// Every hub hears every message: those for the streams of the others cost it something,
// too. How much is what one more hub says, which has no stream. All processes share the
// machine; the rate of messages is the same for every total, and low, so that latency
// is not that of a machine which is full. Pings go on meanwhile, at the default
// interval; what they cost is measured before anything is published, and taken off.
//
// The rows are explained in bench/README.md. The exit status is 1 if any message was
// lost, doubled, late, or delivered to somebody else, or if a stream did not open or
// ended early.
package main
