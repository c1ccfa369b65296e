package app

import (
	"net/netip"
	"net/url"
	"strings"
)

// originProblem returns "" if an origin is written as browsers send it (see "ASCII serialisation of an origin" in the HTML
// standard). Otherwise it returns the problem and what to write instead. The Origin header is compared byte by byte, so any
// other spelling would never match.
func originProblem(s string) string {
	const list = "list each origin, such as https://app.example"
	switch {
	case s == "null":
		return "is sent by sandboxed frames and local files of any site; " + list
	case strings.Contains(s, "*"):
		return "looks like a pattern, and patterns are not supported; " + list
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "does not match what browsers send; write the host in ASCII (xn--…), without spaces"
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "https", s
	}
	u, err := url.Parse(strings.ToLower(scheme + "://" + rest))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), `"<>\^{|}%,;`) {
		return "is not an origin; use scheme, host and optional port, such as https://app.example"
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
		return "does not match what browsers send; write " + origin
	}
	return ""
}
