//go:build !unix

package app

// DescriptorBudget is unknown on this system: no limit.
func DescriptorBudget() (streams, connections int) { return 0, 0 }

// DescriptorLimit is unknown on this system: no limit.
func DescriptorLimit() int { return 0 }
