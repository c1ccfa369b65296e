//go:build !unix

package load

// ownCPU returns 0: the CPU time is not available on this system.
func ownCPU() float64 { return 0 }
