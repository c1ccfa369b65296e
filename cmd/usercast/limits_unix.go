//go:build unix

package main

import "syscall"

// descriptorReserve is kept for listeners, Redis, the admin listener, and
// newcomers who must be told that the hub is full.
const descriptorReserve = 256

// descriptorBudget is how many streams the process's descriptors allow; 0, no
// limit, when that cannot be told. Go has raised the soft limit to the hard one
// at start.
func descriptorBudget() int {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<40 {
		return 0
	}
	n := int(limit.Cur)
	return max(n-min(descriptorReserve, n/4), 1)
}
