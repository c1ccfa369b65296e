package sse

import (
	"context"
	"net"
	"syscall"
	"time"
)

// DefaultSendBuffer is the default of ServerConfig.SendBuffer.
const DefaultSendBuffer = 128 << 10

// Listen listens on a TCP address. Every accepted socket has a send buffer of sendBuffer bytes,
// which the kernel doubles for its bookkeeping. On Linux, a socket is closed if data stays
// unacknowledged for writeTimeout. Without these options, a stalled reader costs 4 MB of kernel
// memory, and it takes 15 minutes to notice a peer that dropped off without a FIN.
//
// A Server calls Listen for its own listener. It is exported for the other listeners of a
// program.
func Listen(ctx context.Context, address string, sendBuffer int, writeTimeout time.Duration) (net.Listener, error) {
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
	return tcpListener{l.(*net.TCPListener), writeTimeout}, nil
}
