package sse

import (
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setOptions sets the options that accepted sockets inherit from their listener.
func setOptions(fd uintptr, sendBuffer int, writeTimeout time.Duration) error {
	for _, option := range []struct {
		name        string
		level, what int
		value       int
	}{
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer},
		// Pings are so small that they need hours to fill the buffer. Until then, writes to
		// an unresponsive peer succeed, and the connection would stay open (mercure#1136).
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds())},
		// Package net sets it only on connections that it accepts itself. Without it, a message waits
		// until the previous one is acknowledged, which a peer may delay for 40 ms.
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	} {
		if err := unix.SetsockoptInt(int(fd), option.level, option.what, option.value); err != nil {
			return fmt.Errorf("set %s: %w", option.name, err)
		}
	}
	return nil
}

// acknowledges reports whether the peer has acknowledged anything within d, including a probe of its
// closed window. The interval between probes doubles, so a peer that has acknowledged everything
// has twice that time.
func acknowledges(conn net.Conn, d time.Duration) bool {
	info := tcpInfo(conn)
	return info == nil || hasAcknowledged(info, d) // nil: not TCP, such as a Unix socket
}

func hasAcknowledged(info *unix.TCPInfo, d time.Duration) bool {
	if info.Last_ack_recv <= info.Last_data_sent {
		d *= 2
	}
	return time.Duration(info.Last_ack_recv)*time.Millisecond < d
}

// isOverdue reports whether the peer has not acknowledged retransmitted data, or whether the kernel has
// closed the connection.
func isOverdue(conn net.Conn) bool {
	info := tcpInfo(conn)
	return info != nil && hasRetransmitted(info)
}

// hasRetransmitted reports whether data or a probe was retransmitted and is still unacknowledged. Data that was
// sent only once does not count: after an idle time, the last acknowledgement is old and the next one may be in flight.
func hasRetransmitted(info *unix.TCPInfo) bool {
	return info.State == unix.BPF_TCP_CLOSE || (info.Unacked > 0 || info.Notsent_bytes > 0) && (info.Retransmits > 0 || info.Probes > 0)
}

// hasFailed reports whether the kernel has closed the connection after an error. A FIN of the peer does not
// count.
func hasFailed(conn net.Conn) bool {
	info := tcpInfo(conn)
	return info != nil && info.State == unix.BPF_TCP_CLOSE
}

// tcpInfo returns nil if conn is not an open TCP socket.
func tcpInfo(conn net.Conn) (info *unix.TCPInfo) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	if e := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); e != nil || err != nil {
		return nil
	}
	return info
}
