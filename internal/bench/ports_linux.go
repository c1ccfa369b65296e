package bench

import (
	"fmt"
	"os"
)

// localPorts returns how many ports the kernel has for outgoing connections from one address, or 0 if that is unknown.
func localPorts() int {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return 0
	}
	var first, last int
	if _, err := fmt.Sscan(string(b), &first, &last); err != nil {
		return 0
	}
	return last - first + 1
}
