// Package sse turns HTTP requests into streams of server-sent events: it authenticates a
// request, registers a client in the hub, and writes the client's frames, pings and goodbye.
//
// # What it guarantees
//
//   - An open stream writes something within the ping interval. A write that waits longer
//     than the write timeout ends the stream.
//   - Frames reach the socket in the order in which the hub queued them. All frames that
//     are queued are written with one call.
//   - A disconnect of the browser is noticed immediately, unless it dropped off without a FIN.
//     During authentication it cancels the context of the request.
//   - The end of a login and the maximum age do not wait for a writer. Nothing is enqueued
//     after them, and the connection closes within the write timeout.
//   - All transports behave the same (invariant 13); transports_linux_test.go has a table of
//     tests that run over all of them.
//   - A slow reader does not delay another stream.
//   - A temporary rejection of a client that accepts event streams is a stream with status 200
//     that ends, so that EventSource reconnects. Only a permanent rejection has an error status.
//
// # What it does not do
//
// It routes nothing and stores nothing. It does not end streams when the process stops: the hub
// does (hub.Hub.Finish), and Server.Shutdown and Handler.Wait wait for them.
//
// A Handler works in any http.Server whose WriteTimeout is 0. Only a Server sets everything that
// streams need.
//
// # Transports
//
// A stream has one of three transports. Pages cannot distinguish them:
//
//	pollConn      HTTP/1.1 without TLS on Linux: a socket in the poller, which is one epoll
//	              for all of them. An idle stream has no goroutine
//	hijackedConn  HTTP/1.1 without TLS elsewhere, or with Config.Portable: a connection
//	              taken over from net/http, and a goroutine that waits for its end
//	responseConn  HTTP/2, TLS, and servers whose connections cannot be taken over
//
// A pollConn can begin in two ways. The fastListener of a Server accepts connections in the poller
// itself; net/http receives only those with a request that is not simple. In another server, the
// connection is taken over from net/http and then added to the poller.
//
// # Who owns what
//
//	connection        the stream, from open on; a fastRequest or net/http before that, and
//	                  net/http all the time under a responseConn
//	slot of MaxConns  the connection: limitedConn, or pollConn once the poller has it
//	queue of frames   hub.Client; the goroutine that runs stream.flush is its one consumer
//	queue of streams  writers: streams that have something to write, each at most once. Writer
//	                  goroutines take them out; so does a feed before it waits
//	flush             one per stream at most, from Wake to the Take that returns nothing. If the
//	                  socket is full, it continues in a separate goroutine of the stream
//	next tick         the wheel, for all streams: a ping, or the end of a stream
//	end of the peer   the poller; for other transports the goroutine that runs watch
//	release           the last of these users of a stream: closes the transport, logs, and
//	                  counts for Handler.Wait
//
// Locks, outermost first: a client's (hub's), the writers', the handler's; the rechecks', the
// handler's; a fastListener's, then netpoll's. The wheel's is held alone.
//
// Code that depends on the internals of net/http is in open.go and transport_*.go; code that
// depends on Linux is in *_linux.go.
package sse
