//go:build !linux

package sse

import (
	"net"
	"time"
)

// setOptions does nothing: these options are Linux's. The write deadline still ends a
// peer that accepts nothing, once its buffer is full.
func setOptions(uintptr, int, time.Duration) error { return nil }

// hasFailed cannot be known without Linux's TCP_INFO.
func hasFailed(net.Conn) bool { return false }

// isOverdue cannot be known without Linux's TCP_INFO.
func isOverdue(net.Conn) bool { return false }

// acknowledges cannot be known without Linux's TCP_INFO.
func acknowledges(net.Conn, time.Duration) bool { return true }
