package app

import (
	"net/http"
	"net/netip"
	"strings"

	"usercast/auth"
)

// parseNetwork parses a network, or an address as a network of one address. IPv4 within IPv6 becomes
// IPv4, as with the addresses of peers.
func parseNetwork(s string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(ip, ip.BitLen())
	}
	if ip := prefix.Addr(); ip.Is4In6() {
		if prefix.Bits() < 96 {
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(ip.Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), true
}

// reservedHeaders have another meaning in requests and responses, or hold values that are never logged.
var reservedHeaders = []string{
	"Accept", "Authorization", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Cookie", "Date", "Host",
	"Last-Event-Id", "Origin", "Proxy-Authorization", "Referer", "Server", "Set-Cookie", "Transfer-Encoding", "User-Agent",
	http.CanonicalHeaderKey(auth.TopicsHeader),
}

// isToken reports whether s is one as in RFC 9110, section 5.6.2: the name of a header, or
// of a cookie.
func isToken(s string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(marks, r))
	})
}
