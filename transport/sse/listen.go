package sse

import (
	"context"
	"fmt"
	"net"
	"syscall"
	"time"

	"usercast/internal/unixsocket"
)

// DefaultSendBuffer is the default of ServerConfig.SendBuffer.
const DefaultSendBuffer = 128 << 10

// Listen listens on a TCP address, host:port, or on a Unix socket, unix:PATH or unix:PATH?mode=660. The mode is octal, 660 by
// default. Every accepted socket has a send buffer of sendBuffer bytes, which the kernel doubles for its bookkeeping. On
// Linux, a socket is closed if data stays unacknowledged for writeTimeout. Without these options, a stalled reader costs
// 4 MB of kernel memory, and it takes 15 minutes to notice a peer that dropped off without a FIN.
//
// The socket of a Unix address replaces that of a process that no longer runs. It is removed when the listener is closed.
// The remote address of its connections is "unix:".
//
// A Server calls Listen for its own listener. It is exported for the other listeners of a
// program.
func Listen(ctx context.Context, address string, sendBuffer int, writeTimeout time.Duration) (net.Listener, error) {
	if unixsocket.Is(address) {
		a, err := unixsocket.Parse(address)
		if err != nil {
			return nil, err
		}
		l, err := unixsocket.Listen(ctx, a)
		if err != nil {
			return nil, err
		}
		return socketListener{Listener: l, sendBuffer: sendBuffer, writeTimeout: writeTimeout, unix: true}, nil
	}
	lc := net.ListenConfig{
		// Pings detect unresponsive peers, so keep-alive probes are not needed. They would do
		// harm: with TCP_USER_TIMEOUT, the kernel closes an idle connection if a single probe is lost.
		// That happens often when 100,000 connections are probed at the same time.
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if e := raw.Control(func(fd uintptr) { err = setOptions(fd, sendBuffer, writeTimeout) }); e != nil {
				return e
			}
			return err
		},
	}
	// MPTCP, which Go's listeners use by default if the system supports it, does not support
	// TCP_USER_TIMEOUT.
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return socketListener{Listener: l, writeTimeout: writeTimeout}, nil
}

// listenOn is Listen with a listener that another program has opened, such as systemd. A connection that was made before
// this process started has not inherited the options, so they are set on each accepted socket.
func listenOn(l net.Listener, sendBuffer int, writeTimeout time.Duration) (net.Listener, error) {
	s := socketListener{Listener: l, sendBuffer: sendBuffer, writeTimeout: writeTimeout}
	switch l := l.(type) {
	case *net.TCPListener:
	case *net.UnixListener:
		s.Listener, s.unix = unixsocket.On(l), true
	default:
		return nil, fmt.Errorf("%T is neither a TCP nor a Unix listener", l)
	}
	return s, nil
}
