//go:build !linux

package sse

import (
	"net"
	"time"
)

// tune does nothing: these options are Linux's. The write deadline still ends a
// peer that takes nothing, once its buffer is full.
func tune(uintptr, int, time.Duration) error { return nil }

// hasFailed cannot be told without Linux's TCP_INFO.
func hasFailed(net.Conn) bool { return false }

// isOwed cannot be told without Linux's TCP_INFO.
func isOwed(net.Conn) bool { return false }

// acknowledges cannot be told without Linux's TCP_INFO.
func acknowledges(net.Conn, time.Duration) bool { return true }
