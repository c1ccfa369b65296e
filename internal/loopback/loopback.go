// Package loopback recognizes host names and addresses of this machine.
package loopback

import (
	"net"
	"net/netip"
	"strings"
)

// HostError is the error message with which a hub rejects a request to another host than IsHost accepts. The command
// check recognizes it.
const HostError = "only requests from this machine are allowed, at http://127.0.0.1 or http://localhost"

// IsHost reports whether a Host header or the address of a peer is loopback: localhost (RFC 6761, section 6.3), a
// name below it, or a loopback address. These do not depend on a name server. With DNS rebinding, a page of another
// site can resolve its own name to this machine, but its requests then contain that name.
func IsHost(host string) bool {
	if name, port, err := net.SplitHostPort(host); err == nil {
		if strings.Trim(port, "0123456789") != "" {
			return false
		}
		host = name
	} else if inner, ok := strings.CutPrefix(host, "["); ok {
		if host, ok = strings.CutSuffix(inner, "]"); !ok {
			return false
		}
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Zone() == "" && ip.Unmap().IsLoopback()
}
