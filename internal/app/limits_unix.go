//go:build unix

package app

import (
	"math"
	"syscall"

	"usercast/transport/sse"
)

// Descriptors that are no stream's. The hub itself needs some for its listeners,
// Redis, probes and whoever looks at the admin listener. Newcomers need some while
// they ask, and to be told that the hub is full: a fifth of a low limit.
const (
	ownDescriptors      = 16 + sse.PassersBy
	newcomerDescriptors = 232
)

// DescriptorBudget is how many streams, and how many connections of the public
// listener altogether, the process's descriptors allow; 0, no limit, when that
// cannot be told. Go has raised the soft limit to the hard one at start.
func DescriptorBudget() (streams, connections int) {
	limit := DescriptorLimit()
	if limit == 0 {
		return 0, 0
	}
	connections = max(limit-ownDescriptors, 2)
	return connections - min(newcomerDescriptors, connections/5+1), connections
}

// DescriptorLimit is how many descriptors the process may hold; 0: no limit that
// matters.
func DescriptorLimit() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > math.MaxInt32 { // a descriptor is one
		return 0
	}
	return int(limit.Cur)
}
