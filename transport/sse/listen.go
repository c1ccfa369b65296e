package sse

import (
	"context"
	"net"
	"syscall"
	"time"
)

// DefaultSendBuffer is the send buffer of a connection in bytes, if none is configured.
const DefaultSendBuffer = 128 << 10

// Listen listens on a TCP address. Every accepted socket has a send buffer of sendBuffer
// bytes (the kernel doubles it for its own bookkeeping), and on Linux is closed when data
// stays unacknowledged for writeTimeout. Without these options a stalled reader costs
// 4 MB of kernel memory, and a peer that drops off without a FIN is noticed after 15 minutes.
//
// A Server calls it for its own listener. It is exported for the other listeners of a
// program.
func Listen(ctx context.Context, address string, sendBuffer int, writeTimeout time.Duration) (net.Listener, error) {
	lc := net.ListenConfig{
		// Pings detect peers that have vanished. With TCP_USER_TIMEOUT the kernel gives a
		// connection up when one probe of an idle one is lost, as many are when a hundred
		// thousand of them are probed at once.
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if e := raw.Control(func(fd uintptr) { err = setOptions(fd, sendBuffer, writeTimeout) }); e != nil {
				return e
			}
			return err
		},
	}
	// Over MPTCP, which Go's listeners speak where they can, TCP_USER_TIMEOUT is
	// "protocol not available".
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return tcpListener{l.(*net.TCPListener), writeTimeout}, nil
}
