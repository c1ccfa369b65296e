package app

import (
	"net/netip"
	"net/url"
	"strings"
)

// originFault is what is wrong with an origin, and what to write instead; "" if it is
// as browsers send it (the HTML standard, "ASCII serialisation of an origin").
// The header is compared byte by byte: another spelling would never match.
func originFault(s string) string {
	const list = "list each origin, such as https://app.example"
	switch {
	case s == "null":
		return "is what every sandboxed frame and local file sends, of any site: " + list
	case strings.Contains(s, "*"):
		return "would be a pattern, and there are none: " + list
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "is not as browsers send it: write the host in ASCII (xn--…), without spaces"
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "https", s
	}
	u, err := url.Parse(strings.ToLower(scheme + "://" + rest))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), `"<>\^{|}%,;`) {
		return "is not an origin such as https://app.example: scheme, host and perhaps port"
	}
	host, port := u.Hostname(), strings.TrimLeft(u.Port(), "0")
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	origin := u.Scheme + "://" + host
	if port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		origin += ":" + port
	}
	if origin != s {
		return "is not as browsers send it: write " + origin
	}
	return ""
}
