//go:build !unix

package app

// DescriptorBudget returns 0, no limit, because the limit is unknown on this platform.
func DescriptorBudget() (streams, connections int) { return 0, 0 }

// DescriptorLimit returns 0, no limit, because the limit is unknown on this platform.
func DescriptorLimit() int { return 0 }
