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
//   - A browser that closes is noticed at once, also while it is authenticated: the
//     context of its request ends.
//   - The end of a login and the maximum age do not wait for a writer: the client gets
//     nothing after it, and the connection closes within the write timeout.
//   - Every way in which a connection becomes a stream behaves the same (invariant 13):
//     transports_linux_test.go has the table of them.
//   - No reader holds up another one's stream.
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
// # How a stream is carried
//
// Three wires carry streams, and a page cannot tell them apart:
//
//	parkedWire    HTTP/1.1 without TLS on Linux: a descriptor in the lot, which is one
//	              epoll for all of them, and nothing else while nothing happens
//	connWire      HTTP/1.1 without TLS elsewhere, or if Config.Portable: a connection
//	              taken over from net/http, and a goroutine that waits for its end
//	responseWire  HTTP/2, TLS, and servers that let nothing be taken over
//
// A front goes one step further than the first: it accepts connections in the lot, and
// net/http sees only those whose request is out of the ordinary.
//
// # Who owns what
//
//	connection        the stream, from detach on; a front or net/http before that, and
//	                  net/http all the time under a responseWire
//	queue of frames   hub.Client; whoever runs stream.flush is its one consumer
//	line              writers: streams that have something to be written, each at most
//	                  once; goroutines that take them out, and a feed before it waits
//	flush             at most one a stream: from Wake to the Take that ends it. Where a
//	                  reader holds it up it goes on in a goroutine of the stream's own
//	next tick         the wheel, for all streams: a ping, or the end of a stream's age
//	end of the peer   the lot; for other wires a goroutine, the caller of watch
//	last of these     release: closes the wire, logs, counts down Handler.Wait
//
// Locks, outermost first: a client's (hub's), the line's, the handler's; a front's, a
// parkedWire's, the lot's. The wheel's is held alone.
//
// All that knows net/http's insides is in detach.go, stream.go and wire_*.go; all that
// is Linux's is in *_linux.go.
package sse
