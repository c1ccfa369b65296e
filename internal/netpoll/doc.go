// Package netpoll performs non-blocking I/O on sockets without the goroutine and the
// buffers that package net needs per connection.
//
//	Poller    one epoll and one goroutine for all its sockets. Both exist only while it
//	          has sockets. Go's own poller waits for the epoll
//	Conn      a connected socket in a Poller: 48 bytes while idle
//	Acceptor  a listening socket in a Poller
//	ReadConn  a net.Conn whose Read does not wake the runtime's monitor thread
//	TryWriter writes to a net.Conn only what it accepts immediately
//
// Poller, Conn and Acceptor exist on Linux only. ReadConn and TryWriter exist on every
// system; on those without an implementation, ReadConn is the connection itself, and
// TryWriter writes nothing.
//
// The package handles sockets only. Its callers decide which connections to accept, and
// how long a write is allowed to take.
//
// # Who owns what
//
//	file descriptor  the Conn, from Add or Adopt to Close or Detach
//	callbacks        run on the Poller's goroutine, one at a time, without a lock held.
//	                 They must not block, because all other connections would wait
//	writes           the caller. Only one goroutine writes to a Conn at a time
//
// Locks, outermost first: a Conn's or an Acceptor's, then the Poller's.
//
// # Raw system calls
//
// The calls made per message and per new connection (read, write, accept4, epoll_ctl,
// epoll_wait without a timeout) use RawSyscall, which bypasses the scheduler. After an idle
// time, the ordinary functions of package syscall wake the runtime's monitor thread, which then
// checks every 20 µs whether another thread should take over. This used 19 % of the CPU time of a
// hub at 5,000 messages per second.
//
// All these sockets are non-blocking, so no call waits for a peer. A call can still
// stall: write allocates memory for the send buffer and waits for reclaim under memory
// pressure, epoll_ctl takes a mutex of the epoll, and any of them can be preempted by
// the kernel. While it stalls, its thread keeps its P, and a garbage collection that
// must stop all goroutines waits for it. The sizes are therefore bounded: one write
// is one frame, or at most what a send buffer accepts. writev for several frames, and every call
// that is not made per message, are ordinary calls.
//
// No other package makes raw system calls or imports unsafe.
package netpoll

import "errors"

// ErrWouldBlock means that the socket currently accepts no more bytes, or that no bytes are available to read.
var ErrWouldBlock = errors.New("netpoll: operation would block")
