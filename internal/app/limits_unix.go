//go:build unix

package app

import (
	"math"
	"syscall"

	"usercast/transport/sse"
)

// Descriptors that are not for streams. The hub needs some for its listeners,
// Redis, probes and the clients of the admin listener. New clients need some while
// they are authenticated, or rejected because the hub is full: a fifth of a low limit.
const (
	ownDescriptors       = 16 + sse.OverflowConns
	newClientDescriptors = 232
)

// DescriptorBudget is how many streams, and how many connections of the public
// listener in total, the descriptors of the process allow; 0, no limit, if that
// is unknown. Go has raised the soft limit to the hard one at start.
func DescriptorBudget() (streams, connections int) {
	limit := DescriptorLimit()
	if limit == 0 {
		return 0, 0
	}
	connections = max(limit-ownDescriptors, 2)
	return connections - min(newClientDescriptors, connections/5+1), connections
}

// DescriptorLimit is how many descriptors the process may have; 0: no limit that
// matters.
func DescriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 { // a descriptor is an int32
		return 0
	}
	return int(limit.Cur)
}
