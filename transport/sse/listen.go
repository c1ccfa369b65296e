package sse

import (
	"context"
	"net"
	"syscall"
	"time"
)

// Listen listens for streams on a TCP address. Every accepted socket has a send
// buffer of sendBuffer bytes (the kernel doubles it for its own book-keeping), and
// on Linux is closed when data stays unacknowledged for writeTimeout.
//
// A Handler works on any listener; without these options a reader that stops
// costs 4 MB of kernel memory, and a peer that vanishes stays for a quarter of
// an hour.
func Listen(ctx context.Context, address string, sendBuffer int, writeTimeout time.Duration) (net.Listener, error) {
	lc := net.ListenConfig{
		// Pings find out who has vanished. With TCP_USER_TIMEOUT the kernel gives a
		// connection up when one probe of an idle one is lost, as many are when a hundred
		// thousand of them are probed at once.
		KeepAlive: -1,
		Control: func(_, _ string, raw syscall.RawConn) error {
			var err error
			if e := raw.Control(func(fd uintptr) { err = tune(fd, sendBuffer, writeTimeout) }); e != nil {
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
	return listener{l, writeTimeout}, nil
}
