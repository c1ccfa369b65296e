//go:build !unix

package app

// DescriptorBudget cannot be told here: no limit.
func DescriptorBudget() (streams, connections int) { return 0, 0 }

// DescriptorLimit cannot be told here: no limit.
func DescriptorLimit() int { return 0 }
