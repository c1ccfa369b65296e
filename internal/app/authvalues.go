package app

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"usercast/auth"
	"usercast/internal/unixsocket"
)

// parseNetwork parses a network or an address, which becomes a network of one address. It converts IPv4-mapped IPv6
// addresses to IPv4, like the addresses of peers.
func parseNetwork(s string) (netip.Prefix, bool) {
	if s == unixsocket.Peer {
		return auth.UnixSocket, true
	}
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
	auth.TopicsHeader, auth.GroupsHeader,
}

// isToken reports whether s is a token as defined in RFC 9110, section 5.6.2. Names of headers and cookies are tokens.
func isToken(s string) bool {
	const marks = "!#$%&'*+-.^_`|~"
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(marks, r))
	})
}

// fixedHeaders cannot be in --forward-header: they apply to the browser's connection or stream (RFC 9110, sections 6.6,
// 7.6.1, 10.1 and 13 to 14), or the hub itself sets them.
var fixedHeaders = []string{
	"Accept", "Accept-Encoding", "Cache-Control", "Connection", "Content-Encoding", "Content-Length", "Content-Type", "Expect", "Forwarded", "Host",
	"Http2-Settings", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since", "Keep-Alive", "Last-Event-Id",
	"Max-Forwards", "Pragma", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection", "Range", "Te", "Trailer", "Transfer-Encoding",
	"Upgrade", "X-Requested-With",
}

// checkForwardHeader checks a name in --forward-header.
func checkForwardHeader(name string) error {
	if !isToken(name) {
		return fmt.Errorf("%q is not a valid header name", name)
	}
	same := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-")) // equal names to apps with CGI variables (RFC 3875, section 4.1.18)
	switch {
	case strings.HasPrefix(same, "X-Forwarded-"), same == "Forwarded":
		return fmt.Errorf("%s cannot be forwarded from browsers; the hub sends it to the app if a proxy in --trusted-proxy sets it", name)
	case slices.Contains(fixedHeaders, same):
		return fmt.Errorf("%s cannot be forwarded: the hub sets it itself, or it applies only to the browser's own request; remove it", name)
	}
	return nil
}

// isHost reports whether s is a host name or an IP address, optionally with a port (RFC 9110, section 7.2).
func isHost(s string) bool {
	u, err := url.Parse("http://" + s)
	if err != nil || u.Host != s || u.Hostname() == "" || strings.HasSuffix(s, ":") {
		return false
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return false
		}
	}
	if ip, err := netip.ParseAddr(u.Hostname()); err == nil {
		return ip.Zone() == "" && ip.Is6() == strings.HasPrefix(s, "[")
	}
	return !strings.ContainsFunc(u.Hostname(), func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_')
	})
}
