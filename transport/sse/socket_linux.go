package sse

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tune sets the options that accepted sockets inherit from their listener.
func tune(fd uintptr, sendBuffer int, writeTimeout time.Duration) error {
	if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer); err != nil {
		return fmt.Errorf("set SO_SNDBUF: %w", err)
	}
	// Pings are so small that they fill even this buffer only in hours; until
	// then no write fails, and a peer that vanished would stay (mercure#1136).
	if err := unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds())); err != nil {
		return fmt.Errorf("set TCP_USER_TIMEOUT: %w", err)
	}
	return nil
}

// acknowledges reports whether the peer has acknowledged anything, a probe of its
// closed window included, within d. The probes are sent ever less often, so one
// that has acknowledged all that it was sent has twice that time.
func acknowledges(conn net.Conn, d time.Duration) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); e != nil || err != nil {
		return false
	}
	if info.Last_ack_recv <= info.Last_data_sent {
		d *= 2
	}
	return time.Duration(info.Last_ack_recv)*time.Millisecond < d
}
