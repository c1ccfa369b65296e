//go:build !linux

package redis

import "net"

// polled has no use for what it has on Linux.
func polled(conn net.Conn) net.Conn { return conn }
