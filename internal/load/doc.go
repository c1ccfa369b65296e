// Package load opens many streams of a hub, publishes to them, and checks and
// measures what arrives. It is the engine of usercast bench.
//
// # What it promises
//
//   - Every message carries who it is for, its place in that user's sequence and
//     when it was due. What a stream missed, heard twice, heard late or heard in
//     another's place is counted exactly, and so is which of the missed a gap
//     announced.
//   - In an open loop a message's latency counts from when it was due, so that a hub
//     which stalls is not spared what would have been sent meanwhile.
//   - A message counts as missed only if Redis confirmed it and the stream was open
//     to the end. Streams that end are counted by why they ended.
//   - It is cheap, for it shares the machine with the hub: on Linux one goroutine reads
//     all plain HTTP/1.1 streams with one buffer, and an idle stream is a few words.
//   - Every wait is bounded; a hub or a Redis that dies is reported.
//
// # What it does not
//
// It does not come back as a browser does: a stream that ended stays so. It knows
// Redis only as a Publisher, and believes what the hub's /metrics say.
//
// # Who owns what
//
//	connection       its dial worker until the request is written, then the reader
//	reader           Linux, plain HTTP/1.1: one epoll goroutine for all streams;
//	                 else one goroutine a connection
//	parser, ledger   the tally, under its lock, which a reader takes once a batch
//	Publisher        writing: the goroutine of Run; Receive: one goroutine of Run's
//	messages' table  the goroutine of Run; readers write a message's last arrival
package load
