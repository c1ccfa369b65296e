// Package sse turns HTTP requests into streams of server-sent events: it finds
// out who is asking, registers a client in the hub, and writes the client's
// frames, pings and goodbye.
//
// # What it promises
//
//   - A stream that is open writes something within the ping interval, and a
//     write that waits longer than the write timeout ends it.
//   - Frames reach the socket in the order in which the hub queued them; all that
//     is queued goes out in one write.
//   - A browser that closes is noticed at once.
//   - "Not now" is told inside a 200 stream to clients that accept one; only
//     "never" is an error status.
//
// # What it does not
//
// It routes nothing and remembers nothing. It does not end streams when the
// process stops: the hub does (hub.Hub.Finish), and Handler.Wait waits for them.
//
// The server is somebody else's. Its WriteTimeout must be 0, and when it speaks
// HTTP/2 its HTTP2.WriteByteTimeout should be the write timeout: a connection that
// takes nothing holds up the writes of all its streams, and no deadline of a stream
// ends that. Its ConnContext should be ours, lest a peer that vanished counts as one
// that left.
//
// A Crowd keeps descriptors free for what is not a stream.
//
// # Who owns what
//
//	connection        the stream, from detach on; net/http before that, and for
//	                  HTTP/2, TLS and servers that cannot hijack all the time
//	queue of frames   hub.Client; the stream's writer is its one consumer
//	watch goroutine   one a stream: the caller of watch. Parked until the peer leaves
//	writer goroutine  at most one a stream: started by Wake, gone when all is written
//	timer             the stream: next ping, or the end of its age
//	last of these     release: closes the connection, logs, counts down Handler.Wait
//
// All that knows net/http's insides is in detach.go, stream.go and wire_*.go.
package sse
