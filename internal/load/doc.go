// Package load opens many streams of a hub, publishes to them, checks that each message arrives, and measures latency and
// cost. It is the engine of usercast bench.
//
// # Guarantees
//
//   - Each message contains its user, its number in the sequence of this user, and the time when it was due. Messages that
//     are lost, duplicated, out of order or delivered to the wrong user are counted exactly. So are lost messages that a
//     gap announced.
//   - In an open loop, the latency of a message counts from when it was due. So a hub that stalls is also charged for the
//     messages that were due meanwhile.
//   - A message counts as lost only if Redis has confirmed it and the stream was open until the end. Streams that end
//     early are counted by reason.
//   - The load generator uses few resources, because it shares the host with the hub. On Linux, one goroutine reads all
//     plain HTTP/1.1 streams with one buffer. An idle stream takes a few words of memory.
//   - Each wait has a timeout. A hub or a Redis server that fails is reported.
//
// # Limitations
//
// Streams do not reconnect like those of a browser. The package accesses Redis through a Publisher only. It does not
// verify the values in the hub's /metrics.
//
// # Ownership
//
//	connection      its dial worker until the request is written, then the reader
//	reader          on Linux, plain HTTP/1.1: one epoll goroutine for all streams; otherwise one goroutine per connection
//	parser, ledger  guarded by the lock of the tally, which a reader acquires once per batch
//	Publisher       Publish and Flush: the goroutine of Run; Receive: the goroutine of the sender
//	phase.last      allocated by the goroutine of Run; readers write the elements
package load
