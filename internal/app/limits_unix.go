//go:build unix

package app

import (
	"math"
	"syscall"

	"usercast/transport/sse"
)

// Numbers of file descriptors that are reserved. The hub needs ownDescriptors for its listeners, Redis, health checks and
// the clients of the admin listener. New clients need newClientDescriptors while they are authenticated, or rejected at
// capacity. If the limit is low, a fifth is reserved for them instead.
const (
	ownDescriptors       = 16 + sse.OverflowConns
	newClientDescriptors = 232
)

// DescriptorBudget returns the number of streams, and the total number of connections of the public listener, for which the
// process has file descriptors. It returns 0, no limit, if the limit is unknown. At start, Go has raised the soft limit to
// the hard limit.
func DescriptorBudget() (streams, connections int) {
	limit := DescriptorLimit()
	if limit == 0 {
		return 0, 0
	}
	connections = max(limit-ownDescriptors, 2)
	return connections - min(newClientDescriptors, connections/5+1), connections
}

// DescriptorLimit returns the limit of file descriptors of the process, or 0 if it is unknown or too high to matter.
func DescriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 { // a file descriptor is an int32
		return 0
	}
	return int(limit.Cur)
}
