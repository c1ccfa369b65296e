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
		// Pings are so small that they fill even this buffer only in hours; until
		// then no write fails, and a peer that vanished would stay (mercure#1136).
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(writeTimeout.Milliseconds())},
		// Package net sets it on what it accepts itself. Without it, a message waits until
		// the one before it is acknowledged, which a peer may delay for 40 ms.
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	} {
		if err := unix.SetsockoptInt(int(fd), option.level, option.what, option.value); err != nil {
			return fmt.Errorf("set %s: %w", option.name, err)
		}
	}
	return nil
}

// acknowledges reports whether the peer has acknowledged anything, a probe of its
// closed window included, within d. The probes are sent ever less often, so one
// that has acknowledged all that it was sent has twice that time.
func acknowledges(conn net.Conn, d time.Duration) bool {
	info := tcpInfo(conn)
	return info == nil || hasAcknowledged(info, d) // nil: a pipe, a Unix socket
}

func hasAcknowledged(info *unix.TCPInfo, d time.Duration) bool {
	if info.Last_ack_recv <= info.Last_data_sent {
		d *= 2
	}
	return time.Duration(info.Last_ack_recv)*time.Millisecond < d
}

// isOverdue reports whether the peer has yet to acknowledge something that was retransmitted
// to it, or had when the kernel gave the connection up.
func isOverdue(conn net.Conn) bool {
	info := tcpInfo(conn)
	return info != nil && hasRetransmitted(info)
}

// hasRetransmitted leaves out what has just been sent: after a silence the last acknowledgement
// is old, and that of what ended the silence is in flight.
func hasRetransmitted(info *unix.TCPInfo) bool {
	return info.State == unix.BPF_TCP_CLOSE || (info.Unacked > 0 || info.Notsent_bytes > 0) && (info.Retransmits > 0 || info.Probes > 0)
}

// hasFailed reports whether the kernel has given the connection up, which a FIN of the peer
// does not cause.
func hasFailed(conn net.Conn) bool {
	info := tcpInfo(conn)
	return info != nil && info.State == unix.BPF_TCP_CLOSE
}

// tcpInfo is nil for what is not an open TCP socket.
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
