package auth

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// ErrHostRejected means that the app does not accept the Host header of a call: see ForwardConfig.Host. The rejection is
// permanent or temporary, depending on the status that the app returned.
var ErrHostRejected = errors.New("the app does not accept the Host header of the session check")

// ErrRedirected wraps ErrUnauthorized: the app redirects the call to a login page instead of returning 401. ErrForcesHTTPS
// wraps ErrRedirected: the app redirects the call to the same path with https.
var (
	ErrRedirected  = fmt.Errorf("%w: the app responded with a redirect", ErrUnauthorized)
	ErrForcesHTTPS = fmt.Errorf("%w to https", ErrRedirected)
)

// A hostErrorPage describes how a server rejects a Host header.
type hostErrorPage struct {
	status int
	text   []byte // a part of the page, in lower case
}

var hostErrors = []hostErrorPage{
	{403, []byte("blocked host")},               // Rails
	{400, []byte("invalid http_host")},          // Django with DEBUG
	{400, []byte("invalid host header")},        // Starlette
	{403, []byte("invalid host header")},        // webpack-dev-server
	{400, []byte("invalid hostname")},           // ASP.NET Core and HTTP.sys
	{400, []byte("untrusted host")},             // Symfony with its debug page
	{404, []byte("bad hostname provided")},      // Laravel
	{403, []byte("blocked request. this host")}, // Vite
}

// mayRejectHost reports whether a response with this status may be about the Host header of the call.
func mayRejectHost(status int) bool {
	return status == http.StatusBadRequest || status == http.StatusForbidden || status == http.StatusNotFound || status == http.StatusMisdirectedRequest
}

// host returns the Host header of calls.
func (f *Forward) host() string {
	if f.cfg.Host != "" {
		return f.cfg.Host
	}
	return f.cfg.URL.Host
}

// hostError returns the error for a response that rejects the Host header, and nil for other responses.
func (f *Forward) hostError(status int, page []byte) error {
	if !mayRejectHost(status) {
		return nil
	}
	page = bytes.ToLower(page)
	named := slices.ContainsFunc(hostErrors, func(e hostErrorPage) bool { return e.status == status && bytes.Contains(page, e.text) })
	if !named && status != http.StatusMisdirectedRequest {
		return nil
	}
	err := ErrHostRejected
	if status == http.StatusForbidden {
		err = fmt.Errorf("%w: %w", ErrForbidden, ErrHostRejected)
	}
	return WithHint(err, "set --forward-host to a host name that the app accepts, or add "+f.host()+" to the allowed hosts of the app; the app must also accept the host name that browsers use")
}

// redirectError returns the error for a redirect of a call with these headers, of a client at a Unix socket if unix is true.
func (f *Forward) redirectError(resp *http.Response, header http.Header, unix bool) error {
	to, err := resp.Location()
	if err != nil {
		return ErrRedirected
	}
	from := f.cfg.URL
	switch {
	case to.Path == from.Path && to.Scheme == "https" && header.Get("X-Forwarded-Proto") == "https" && from.Scheme == "http":
		return WithHint(ErrForcesHTTPS, "let the app trust the header X-Forwarded-Proto from the hub's address; the hub already sends https (Django: SECURE_PROXY_SSL_HEADER, Laravel: TrustProxies)")
	case to.Path == from.Path && to.Scheme == "https" && from.Scheme == "http":
		trust := "set --trusted-proxy to the address of the proxy that terminates TLS"
		if unix {
			trust = "set --trusted-proxy unix: to trust the processes that can connect to the socket"
		}
		return WithHint(ErrForcesHTTPS, trust+", and let the proxy set X-Forwarded-Proto to https")
	case to.Path == from.Path && to.Host != f.host() && to.Host != header.Get("X-Forwarded-Host"):
		return WithHint(ErrRedirected, "set --forward-host "+clip(to.Host)+", to which the app redirects")
	case to.Path != from.Path && strings.TrimSuffix(to.Path, "/") == strings.TrimSuffix(from.Path, "/"):
		return WithHint(ErrRedirected, "set the path of --forward-url to "+clip((&url.URL{Path: to.Path}).EscapedPath())+", to which the app redirects")
	}
	return ErrRedirected
}

// noteRedirect logs each kind of redirect once.
func (f *Forward) noteRedirect(err error, status int) {
	hint := Hint(err)
	if hint == "" {
		hint = "return 401 instead of a redirect"
	}
	f.mu.Lock()
	known := f.redirects[hint]
	if len(f.redirects) < maxRedirectKinds {
		f.redirects[hint] = true
	} else {
		known = true
	}
	f.mu.Unlock()
	if !known {
		f.cfg.Logger.Warn("app redirected a session check, treating it as 401", slog.Int("status", status), slog.String("hint", hint))
	}
}

// maxRedirectKinds bounds what the hub remembers and logs of redirects, because a browser may be able to influence them.
const maxRedirectKinds = 8

// diagnose logs the timeout of a call with cookies, or that the queue is long because of such calls. A framework that locks
// the session during a request delays the call until an earlier request of the same session has ended (PHP:
// session_start). The app itself works then, which a call without credentials shows.
func (f *Forward) diagnose(header http.Header, err error) {
	defer func() { f.logLimiter.diagnosisEnded(time.Now()) }()
	took, ok := f.probe(header)
	if errors.Is(err, errQueueFull) {
		ok = ok && took < f.cfg.Timeout/4 // otherwise, the app is too slow for all
		f.mu.Lock()
		if ok {
			err = f.late
		}
		f.mu.Unlock()
	}
	if !ok {
		f.logUnavailable(err)
		return
	}
	if f.slowSessions.Allow() {
		f.cfg.Logger.Warn("session check timed out for one session, asking its browser to retry later",
			slog.Duration("without_cookies", took),
			slog.String("hint", "the app answers without cookies; a slow request of the same session may hold its lock (PHP): close the session in slow requests, or read it without a lock"),
			slog.Any("error", err))
	}
}

// probe sends a call without credentials, and returns how long the app took to answer. It does not wait for the calls in
// the limiter, which may all wait for locks: logLimiter lets one be in flight at a time.
func (f *Forward) probe(header http.Header) (took time.Duration, ok bool) {
	header = header.Clone()
	header.Del("Cookie")
	header.Del("Authorization")
	start := time.Now()
	_, err := f.send(header, false)
	return time.Since(start).Round(100 * time.Microsecond), err == nil || IsPermanent(err)
}
