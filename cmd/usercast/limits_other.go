//go:build !unix

package main

// descriptorBudget cannot be told here: no limit.
func descriptorBudget() (streams, connections int) { return 0, 0 }

// descriptorLimit cannot be told here: no limit.
func descriptorLimit() int { return 0 }
