// Package sse turns HTTP requests into streams of server-sent events: it authenticates a
// request, registers a client in the hub, and writes the client's frames, its pings and the final event.
//
// # What it guarantees
//
//   - The hub writes to each open stream at least once per ping interval. A write that takes
//     longer than the write timeout ends the stream.
//   - Frames reach the socket in the order in which the hub queued them. One call writes all
//     queued frames.
//   - A disconnect of the browser is noticed immediately, unless it dropped off without a FIN.
//     During authentication it cancels the context of the request.
//   - A stream also ends on time if a write is blocked when its login expires or it reaches the maximum
//     age. Nothing is enqueued after that, and the connection closes within the write timeout.
//   - All transports behave the same (invariant 13); transports_linux_test.go has a table of
//     tests that run over all of them.
//   - A slow reader does not delay another stream.
//   - A temporary rejection of a client that accepts event streams is a stream with status 200
//     that ends, so that EventSource reconnects. Only a permanent rejection has an error status.
//
// # What it does not do
//
// It does not route or store messages. It does not end streams when the process stops: the hub
// does (hub.Hub.Finish), and Server.Shutdown and Handler.Wait wait for them.
//
// A Handler works in any http.Server whose WriteTimeout is 0. Only a Server sets everything that
// streams need.
//
// # Transports
//
// A stream has one of three transports, which look the same to a page:
//
//	pollConn      HTTP/1.1 without TLS on Linux: a socket in the poller, which uses one epoll
//	              for all sockets. An idle stream needs no goroutine
//	hijackedConn  HTTP/1.1 without TLS on other systems, or with Config.Portable: a connection
//	              hijacked from net/http, and a goroutine that waits for its end
//	responseConn  HTTP/2, TLS, and servers whose connections cannot be hijacked
//
// A pollConn can begin in two ways. The fastListener of a Server accepts connections in the poller
// itself, and passes a connection to net/http only if its request is not simple. In another server, the
// connection is hijacked from net/http and then added to the poller.
//
// # Who owns what
//
//	connection        the stream, once it is open. Before that, a fastRequest or net/http.
//	                  Under a responseConn, always net/http
//	slot of MaxConns  the connection: limitedConn, or pollConn once it is in the poller
//	queue of frames   hub.Client. Its only consumer is the goroutine that runs stream.flush
//	queue of streams  writers: streams with pending writes, each at most once. Writer
//	                  goroutines remove them, and so does a feed before it waits
//	flush             at most one per stream, from Wake until Take returns nothing. If the
//	                  socket is full, it continues in a separate goroutine of the stream
//	next tick         the wheel, for all streams: a ping, or the end of a stream
//	end of the peer   the poller. For other transports, the goroutine that runs watch
//	release           the last of these users of a stream: it closes the transport, logs, and
//	                  counts for Handler.Wait
//
// Lock order, outermost first, in three chains: a client (of hub), writers, Handler; rechecks, Handler;
// fastListener, netpoll. No other lock is taken while the wheel's is held.
//
// Code that depends on the internals of net/http is in open.go and transport_*.go; code that
// depends on Linux is in *_linux.go.
package sse
