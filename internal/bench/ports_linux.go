package bench

import (
	"fmt"
	"os"
)

// localPorts is how many ports the kernel gives to outgoing connections of one
// address; 0: cannot be told.
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
