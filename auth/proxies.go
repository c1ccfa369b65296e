package auth

import (
	"net/http"
	"net/netip"
)

// Proxies are the networks whose X-Forwarded-* and X-User-* headers are believed.
type Proxies []netip.Prefix

// Sent reports whether r comes from one of the proxies.
func (p Proxies) Sent(r *http.Request) bool {
	ip, ok := peer(r)
	if !ok {
		return false
	}
	for _, network := range p {
		if network.Contains(ip) {
			return true
		}
	}
	return false
}

// peer is the address at the other end of the connection.
func peer(r *http.Request) (netip.Addr, bool) {
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	return address.Addr().Unmap().WithZone(""), err == nil
}
