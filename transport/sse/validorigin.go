package sse

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

// ValidateOrigin returns nil if an origin for Origins.Allow is written as browsers and web views send it (see
// "serialization of an origin" in the HTML standard). Otherwise, the error says what to write instead. The Origin header
// is compared byte by byte, so any other spelling would never match.
//
// Every scheme is accepted, because apps in a web view and browser extensions have their own: capacitor://localhost,
// chrome-extension://<id>. Only the hosts of http and https are always sent in lower case: for other schemes, WebKit
// keeps the spelling (see "opaque-host parser" in the URL standard). file:// is the origin of local files in web views
// that send one.
func ValidateOrigin(origin string) error {
	const list = "list each origin, such as https://app.example"
	switch {
	case origin == "null":
		return errors.New("is sent by sandboxed frames and local files of any site; " + list)
	case strings.Contains(origin, "*"):
		return errors.New("looks like a pattern, and patterns are not supported; " + list)
	case strings.ContainsFunc(origin, func(r rune) bool { return r <= ' ' || r > '~' }):
		return errors.New("does not match what browsers send; write the host in ASCII (xn--…), without spaces")
	}
	if sent, ok := sentOrigin(origin); !ok {
		return errors.New("is not an origin; use scheme, host and optional port, such as https://app.example")
	} else if sent != origin {
		return fmt.Errorf("does not match what browsers send; write %s", sent)
	}
	return nil
}

// sentOrigin returns the Origin header that browsers send for pages of a URL, and false if it is not a URL of a page.
// The default scheme is https.
func sentOrigin(page string) (origin string, ok bool) {
	scheme, rest, ok := strings.Cut(page, "://")
	if !ok {
		scheme, rest = "https", page
	}
	u, err := url.Parse(scheme + "://" + rest)
	if err != nil || u.Opaque != "" || strings.ContainsAny(u.Hostname(), `"<>\^{|}%,;`) {
		return "", false
	}
	host, port, defaultPort := u.Hostname(), strings.TrimLeft(u.Port(), "0"), ""
	scheme = strings.ToLower(u.Scheme)
	switch scheme {
	case "file":
		return "file://", true
	case "http", "ws":
		scheme, defaultPort = "http", "80" // ws and wss are schemes of connections, not of pages
	case "https", "wss":
		scheme, defaultPort = "https", "443"
	default:
		return scheme + "://" + withPort(host, port), true
	}
	if port == defaultPort {
		port = ""
	}
	return scheme + "://" + withPort(strings.ToLower(host), port), host != ""
}

// withPort returns host:port, or host if port is empty. It writes IPv6 addresses in their shortest form, in brackets.
func withPort(host, port string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port != "" {
		host += ":" + port
	}
	return host
}
