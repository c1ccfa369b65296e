package sse

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"usercast/auth"
	"usercast/internal/loopback"
)

// Origins select the pages that are allowed to open a stream, in addition to pages of the
// request's own host. See the Fetch standard, "CORS protocol", and W3C Fetch Metadata Request Headers.
type Origins struct {
	// Allow lists origins as browsers send them: https://app.example. They may
	// send credentials.
	Allow []string
	// Navigate allows opening a stream from the address bar.
	Navigate bool
	// LoopbackHost rejects requests whose Host is not loopback. It is for a loopback
	// listener without authentication: with DNS rebinding, a page of another site has
	// the same origin as this listener.
	LoopbackHost bool
}

// check returns an error for a request that a page of a foreign origin made.
func (o Origins) check(r *http.Request) error {
	// Without a Host, as with HTTP/1.0, it is no browser.
	if o.LoopbackHost && r.Host != "" && !loopback.IsHost(r.Host) {
		return auth.WithHint(errors.New(loopback.HostError), "--auth-insecure-anywhere allows other hosts")
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
	// A page of another site that sends no Origin: a link, a frame, an image.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		if !listed {
			return auth.WithHint(errors.New("cross-site requests are not allowed"), "--allow-origin allows requests with an Origin header")
		}
	}
	return nil
}

// originHint is the flag for an origin that is not listed.
func originHint(origin string) string {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" || origin != u.Scheme+"://"+u.Host {
		return "this origin cannot be allowed because it does not identify a site"
	}
	return "--allow-origin " + clip(origin) + " allows it; if it is the hub's own origin, the proxy must not change the Host header"
}

// allow adds the CORS headers: on error answers too, else the page could not tell
// a refusal from a network error.
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
	h.Set("Access-Control-Allow-Methods", "GET")
	h.Set("Access-Control-Allow-Headers", "authorization, last-event-id, cache-control")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// originOf is the request's Origin header. Browsers send one; of several, which is
// one list (RFC 9110, section 5.3), none counts: a proxy may have looked at another.
func originOf(r *http.Request) string { return strings.Join(r.Header["Origin"], ", ") }

// sameHost reports whether an Origin header is an http or https origin of the host
// that was requested. The scheme is not compared: a proxy may have taken the TLS off.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || origin != u.Scheme+"://"+u.Host { // it has a user, a path, …
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
