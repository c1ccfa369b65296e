//go:build !linux

package netpoll

import "net"

// ReadConn returns conn itself: raw system calls are for Linux.
func ReadConn(conn net.Conn) net.Conn { return conn }
