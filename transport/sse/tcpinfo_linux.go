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

// acknowledges reports whether the peer acknowledges what it is sent. It returns false if data was sent again, or its
// closed window was probed, more than once without an answer, and the last acknowledgement is at least d old.
//
// That age alone would say little: a peer whose buffer is full is sent something at intervals that double, and this
// process may notice the timeout late. The kernel keeps all numbers when it closes the connection.
func acknowledges(conn net.Conn, d time.Duration) bool {
	info := tcpInfo(conn)
	return info == nil || hasAcknowledged(info, d) // nil: not TCP, such as a Unix socket
}

// hasAcknowledged does not count the first attempt: Linux answers a probe of a closed window at most every 500 ms
// (tcp_invalid_ratelimit), and the second probe may come earlier.
func hasAcknowledged(info *unix.TCPInfo, d time.Duration) bool {
	// A peer whose buffer is full may drop data and acknowledge what it has: retransmissions are counted until it
	// acknowledges more. Last_data_sent does not include probes.
	unanswered := info.Probes > 1 || info.Retransmits > 1 && info.Last_ack_recv > info.Last_data_sent
	return !unanswered || time.Duration(info.Last_ack_recv)*time.Millisecond < d
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
