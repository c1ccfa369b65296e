package auth

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"usercast/internal/unixsocket"
)

// Proxies are the networks of proxies whose X-Forwarded-* and X-User-* headers are trusted.
type Proxies []netip.Prefix

// UnixSocket in Proxies trusts all peers that are connected to a Unix socket. They do not have an address: the permissions
// of the socket determine which processes can connect. It is not a network, and not the zero Prefix, which a program could
// add by mistake.
var UnixSocket = netip.PrefixFrom(netip.IPv4Unspecified(), -1)

// Sent reports whether r comes from one of the proxies.
func (p Proxies) Sent(r *http.Request) bool {
	if r.RemoteAddr == unixsocket.Peer {
		return slices.Contains(p, UnixSocket)
	}
	ip, ok := peer(r)
	return ok && p.contain(ip)
}

func (p Proxies) contain(ip netip.Addr) bool {
	return slices.ContainsFunc(p, func(network netip.Prefix) bool { return network.Contains(ip) })
}

// client returns the client address of a request: the peer or, if the peer is one of the proxies, the last address in
// X-Forwarded-For that is not one of them. For IPv6 it returns the /64 network, because a single client can use all of
// its addresses. It returns the zero Addr if the address is unknown.
func (p Proxies) client(r *http.Request) netip.Addr {
	ip, _ := peer(r)
	if p.Sent(r) {
		list := strings.Split(withoutPorts(strings.Join(r.Header.Values("X-Forwarded-For"), ",")), ",")
		for _, element := range slices.Backward(list) {
			hop, err := netip.ParseAddr(strings.Trim(strings.TrimSpace(element), "[]"))
			if err != nil {
				break
			}
			if ip = hop.Unmap().WithZone(""); !p.contain(ip) {
				break
			}
		}
	}
	if ip.Is6() {
		network, _ := ip.Prefix(64) // valid for every IPv6 address
		ip = network.Addr()
	}
	return ip
}

// peer returns the address at the other end of the connection.
func peer(r *http.Request) (netip.Addr, bool) {
	address, err := netip.ParseAddrPort(r.RemoteAddr)
	return address.Addr().Unmap().WithZone(""), err == nil
}
