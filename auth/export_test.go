package auth

import (
	"fmt"
	"net/http"
	"net/netip"
)

// Waiting returns how many requests wait for the call of r.
func (f *Forward) Waiting(r *http.Request) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.calls[keyOf(f.headers(r))]; c != nil {
		return c.waiters
	}
	return 0
}

// SetTransport replaces the connection to the app. It must be called before the first request.
func (f *Forward) SetTransport(transport http.RoundTripper) { f.client.Transport = transport }

// Left describes what the limiter holds although no check is in flight or waiting, or returns "".
func (f *Forward) Left() string {
	l := f.limiter
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.inFlight+l.waiting+len(l.sources)+l.idle.Len()+len(l.active) == 0 {
		return ""
	}
	return fmt.Sprintf("%d in flight, %d waiting, %d sources, %d idle, %d active", l.inFlight, l.waiting, len(l.sources), l.idle.Len(), len(l.active))
}

// Client returns the address that a request is counted for.
func (p Proxies) Client(r *http.Request) netip.Addr { return p.client(r) }
