//go:build !linux

package sse

import (
	"net"
	"time"
)

// setOptions does nothing: the options exist only on Linux. The write deadline still applies when the
// buffer is full.
func setOptions(uintptr, int, time.Duration) error { return nil }

// hasFailed needs TCP_INFO of Linux.
func hasFailed(net.Conn) bool { return false }

// acknowledges needs TCP_INFO of Linux.
func acknowledges(net.Conn, time.Duration) bool { return true }
