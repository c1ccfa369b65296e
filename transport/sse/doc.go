// Package sse turns HTTP requests into streams of server-sent events: it authenticates a
// request, registers a client in the hub, and writes the client's frames, pings and goodbye.
//
// # What it guarantees
//
//   - A stream that is open writes something within the ping interval, and a
//     write that waits longer than the write timeout ends it.
//   - Frames reach the socket in the order in which the hub queued them; everything that
//     is queued is written at once.
//   - A browser that disconnects is noticed immediately, also while it is authenticated: the
//     context of its request ends.
//   - The end of a login and the maximum age do not wait for a writer: the client receives
//     nothing after it, and the connection closes within the write timeout.
//   - Every way in which a connection becomes a stream behaves the same (invariant 13):
//     transports_linux_test.go has the table of them.
//   - A slow reader does not delay another stream.
//   - A temporary rejection is a 200 stream that ends, for clients that accept one; only a
//     permanent rejection is an error status.
//
// # What it does not
//
// It routes nothing and stores nothing. It does not end streams when the process stops: the hub
// does (hub.Hub.Finish), and Server.Shutdown and Handler.Wait wait for them.
//
// A Handler works in any http.Server whose WriteTimeout is 0. Only a Server sets all that
// streams need: see there.
//
// # How a stream is carried
//
// Three transports carry streams, and a page cannot distinguish them:
//
//	pollConn      HTTP/1.1 without TLS on Linux: a socket in the poller, which is one epoll
//	              for all of them, and nothing else while nothing happens
//	hijackedConn  HTTP/1.1 without TLS elsewhere, or with Config.Portable: a connection
//	              taken over from net/http, and a goroutine that waits for its end
//	responseConn  HTTP/2, TLS, and servers whose connections cannot be taken over
//
// A fastListener goes one step further than the first: it accepts connections in the poller, and
// net/http receives only those whose request is not simple.
//
// # Who owns what
//
//	connection        the stream, from open on; a fastRequest or net/http before that, and
//	                  net/http all the time under a responseConn
//	slot of MaxConns  the connection: limitedConn, or pollConn once the poller has it
//	queue of frames   hub.Client; the goroutine that runs stream.flush is its one consumer
//	queue of streams  writers: streams that have something to write, each at most once;
//	                  goroutines take them out, and a feed does before it waits
//	flush             at most one per stream: from Wake to the Take that ends it. Where a
//	                  reader delays it, it continues in a goroutine of the stream's own
//	next tick         the wheel, for all streams: a ping, or the end of a stream's age
//	end of the peer   the poller; for other transports a goroutine, the caller of watch
//	last of these     release: closes the transport, logs, and counts for Handler.Wait
//
// Locks, outermost first: a client's (hub's), the writers', the handler's; a fastListener's,
// then netpoll's. The wheel's is held alone.
//
// What depends on the internals of net/http is in open.go and transport_*.go; what
// depends on Linux is in *_linux.go.
package sse
