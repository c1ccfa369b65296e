package app

import (
	"net/http"
	"net/netip"
	"strings"

	"usercast/auth"
)

// parseNetwork parses a network or an address, which becomes a network of one address. It converts IPv4-mapped IPv6
// addresses to IPv4, like the addresses of peers.
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

// reservedHeaders cannot carry the user id, because they have another meaning or contain secrets.
var reservedHeaders = []string{
	"Accept", "Authorization", "Cache-Control", "Connection", "Content-Length", "Content-Type", "Cookie", "Date", "Host",
	"Last-Event-Id", "Origin", "Proxy-Authorization", "Referer", "Server", "Set-Cookie", "Transfer-Encoding", "User-Agent",
	http.CanonicalHeaderKey(auth.TopicsHeader),
}

// isToken reports whether s is a token as defined in RFC 9110, section 5.6.2. Names of headers and cookies are tokens.
func isToken(s string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(marks, r))
	})
}
