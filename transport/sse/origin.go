package sse

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/http/httpguts"

	"usercast/auth"
	"usercast/internal/loopback"
)

// Origins selects the pages that are allowed to open streams, in addition to pages of the
// request's own host. See the Fetch standard, "CORS protocol", and W3C Fetch Metadata Request Headers.
type Origins struct {
	// Allow lists origins as browsers send them: https://app.example. They may
	// send credentials. See ValidateOrigin.
	Allow []string
	// Navigate allows streams to be opened from the address bar.
	Navigate bool
	// LoopbackHost rejects requests whose Host is not loopback. It protects a loopback
	// listener without authentication from DNS rebinding, with which a page of another site
	// has the same origin as this listener.
	LoopbackHost bool
}

// check returns an error if a page of an origin that is not allowed sent the request.
func (o Origins) check(r *http.Request) error {
	// A request without a Host, as in HTTP/1.0, does not come from a browser.
	if o.LoopbackHost && r.Host != "" && !loopback.IsHost(r.Host) {
		return auth.WithHint(errors.New(loopback.HostError), "set --auth-insecure-anywhere to allow other hosts")
	}
	origin := originOf(r)
	listed := slices.Contains(o.Allow, origin)
	if origin != "" && !listed && !sameHost(origin, r.Host) {
		return auth.WithHint(errors.New("this origin is not allowed"), originHint(origin))
	}
	switch r.Header.Get("Sec-Fetch-Mode") {
	case "navigate":
		if !o.Navigate {
			return auth.WithHint(errors.New("an event stream cannot be opened as a page"), "open the stream with EventSource or fetch")
		}
	case "no-cors":
		return auth.WithHint(errors.New("no-cors requests are not allowed"), "open the stream with EventSource, or with fetch in its default mode")
	}
	// Links, frames and images on a page of another site send requests without an Origin.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		if !listed {
			return auth.WithHint(errors.New("cross-site requests are not allowed"), "send the request with fetch or EventSource, which set the Origin header, and add the origin to --allow-origin")
		}
	}
	return nil
}

// originHint returns advice for an origin that is not listed.
func originHint(origin string) string {
	if origin == "null" {
		return "this origin cannot be allowed because sandboxed frames and local files of any site send it; load the page from a URL with a host"
	}
	if ValidateOrigin(origin) != nil {
		return "this origin cannot be allowed because it does not identify a site"
	}
	return "set --allow-origin " + clip(origin) + " to allow it; if it is the hub's own origin, configure the proxy to keep the Host header"
}

// allow adds the CORS headers. Error responses need them too, so that a page can distinguish a
// rejection from a network error.
func (o Origins) allow(h http.Header, r *http.Request) {
	if len(o.Allow) == 0 {
		return
	}
	if !slices.Contains(h.Values("Vary"), "Origin") {
		h.Add("Vary", "Origin")
	}
	if origin := originOf(r); slices.Contains(o.Allow, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// preflight answers OPTIONS for a listed origin, and reports whether it did.
func (o Origins) preflight(w http.ResponseWriter, r *http.Request) bool {
	if !slices.Contains(o.Allow, originOf(r)) {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Access-Control-Request-Headers")
	h.Set("Access-Control-Allow-Methods", "GET")
	if names := requestedHeaders(r); names != "" {
		h.Set("Access-Control-Allow-Headers", names)
	}
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// maxRequestedHeaders is the maximum size of the list that requestedHeaders returns, in bytes: about 100 names. Some
// proxies reject a response head of more than 4 KiB.
const maxRequestedHeaders = 2 << 10

// requestedHeaders returns the names of the headers that a page wants to send, as its preflight lists them. All are allowed,
// because the hub ignores headers that it does not know, and libraries for tracing add their own to every request. With
// credentials, "*" would allow only a header of that name (Fetch standard, "CORS-preflight fetch"). Text that is not a
// header name is omitted.
func requestedHeaders(r *http.Request) string {
	var names []string
	size := 0
	for name := range strings.SplitSeq(strings.Join(r.Header["Access-Control-Request-Headers"], ","), ",") {
		name = strings.Trim(name, " \t")
		if size += len(name) + len(", "); size > maxRequestedHeaders {
			break
		}
		if httpguts.ValidHeaderFieldName(name) { // false for an empty one
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// originOf returns the Origin header of a request. Browsers send one. Several are joined to a list
// (RFC 9110, section 5.3), which does not match any origin: a proxy may have checked another one.
func originOf(r *http.Request) string { return strings.Join(r.Header["Origin"], ", ") }

// sameHost reports whether an Origin header is an http or https origin of the requested host. It
// does not compare the scheme, because a proxy may terminate TLS.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || origin != u.Scheme+"://"+u.Host { // it contains more, such as a user or a path
		return false
	}
	var port string
	switch u.Scheme {
	case "http":
		port = ":80"
	case "https":
		port = ":443"
	default:
		return false
	}
	requested := strings.TrimSuffix(u.Host, port)
	return u.Hostname() != "" && !strings.HasSuffix(u.Host, ":") && strings.EqualFold(requested, strings.TrimSuffix(host, port))
}
