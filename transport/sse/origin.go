package sse

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Origins say which pages may open a stream besides those of our own host. See
// the Fetch standard, "CORS protocol", and W3C Fetch Metadata Request Headers.
type Origins struct {
	// Allow lists origins as browsers send them: https://app.example. They may
	// send credentials.
	Allow []string
	// Navigate lets the address bar open a stream.
	Navigate bool
}

// check returns an error for a request that a page of a foreign origin made.
func (o Origins) check(r *http.Request) error {
	origin := r.Header.Get("Origin")
	listed := slices.Contains(o.Allow, origin)
	if origin != "" && !listed && !sameHost(origin, r.Host) {
		return errors.New("this origin may not open a stream here")
	}
	switch r.Header.Get("Sec-Fetch-Mode") {
	case "navigate":
		if !o.Navigate {
			return errors.New("a stream cannot be opened as a page")
		}
		return nil
	case "no-cors":
		return errors.New("a stream cannot be opened without CORS")
	}
	// A page of another site that sends no Origin: an image, a script, a form.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		if !listed {
			return errors.New("another site may not open a stream here")
		}
	}
	return nil
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
	if origin := r.Header.Get("Origin"); slices.Contains(o.Allow, origin) {
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
}

// preflight answers OPTIONS for a listed origin, and reports whether it did.
func (o Origins) preflight(w http.ResponseWriter, r *http.Request) bool {
	if !slices.Contains(o.Allow, r.Header.Get("Origin")) {
		return false
	}
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET")
	h.Set("Access-Control-Allow-Headers", "authorization, last-event-id, cache-control")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// sameHost reports whether an Origin header names the host that was asked. The
// scheme is not compared: a proxy may have taken the TLS off.
func sameHost(origin, host string) bool {
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	port := ":80"
	if u.Scheme == "https" {
		port = ":443"
	}
	return strings.EqualFold(strings.TrimSuffix(u.Host, port), strings.TrimSuffix(host, port))
}
