//go:build !linux

package netpoll

import "net"

// ReadConn returns conn itself: this package makes raw system calls on Linux only.
func ReadConn(conn net.Conn) net.Conn { return conn }
