package proxypath

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"usercast/internal/loopback"
)

var errNoHeaders = errors.New("no response headers within the timeout")

// newClient returns a client that connects as a browser does: with the HTTP version that the server
// prefers, and through the proxy of the environment, if there is one.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:              http.ProxyFromEnvironment,
			ForceAttemptHTTP2:  true,
			DisableCompression: true, // a compressed stream is a finding
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// UserAgent is the User-Agent of requests, unless Target.Header contains another one.
const UserAgent = "usercast-check"

// request returns a request as a browser sends it.
func (i *inspection) request(ctx context.Context, query string) *http.Request {
	u := *i.URL
	if query != "" {
		if u.RawQuery != "" {
			u.RawQuery += "&"
		}
		u.RawQuery += query
	}
	r := (&http.Request{Method: http.MethodGet, URL: &u, Header: http.Header{
		"Accept":          {"text/event-stream"},
		"Accept-Encoding": {"gzip, deflate, br, zstd"},
		"Cache-Control":   {"no-cache"},
		"Sec-Fetch-Dest":  {"empty"},
		"Sec-Fetch-Mode":  {"cors"},
		"Sec-Fetch-Site":  {"same-origin"},
		"User-Agent":      {UserAgent},
	}}).WithContext(ctx)
	for name, values := range i.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	return r
}

// connect requests the stream. If the response is not a stream, it reports the reason and returns nil.
func (i *inspection) connect(ctx context.Context) *stream {
	within, cancel := context.WithCancelCause(ctx)
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(within, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	timeout := time.AfterFunc(i.Timeout, func() { cancel(errNoHeaders) })
	start := time.Now()
	resp, err := i.client.Do(i.request(traced, ""))
	if !timeout.Stop() && err == nil { // the headers arrived together with the timeout, which ends the body
		resp.Body.Close()
		err = errNoHeaders
	}
	if err != nil {
		defer cancel(nil)
		switch {
		case ctx.Err() != nil:
		case context.Cause(within) != errNoHeaders:
			i.reportUnreachable(err)
		case connected.Load():
			i.reportNoHeaders(ctx)
		default:
			i.report.Fail("url-unreachable", "check that the host is up and that no firewall blocks the connection", "cannot connect to %s within %v", i.URL.Host, i.Timeout)
		}
		return nil
	}
	s := &stream{resp: resp, took: time.Since(start), cancel: func() { cancel(nil) }}
	if resp.StatusCode != http.StatusOK {
		i.reportStatus(ctx, resp)
		s.close()
		return nil
	}
	s.read()
	return s
}

// reportNoHeaders reports why no response headers arrived. If a short response arrives, the response of the stream was
// buffered.
func (i *inspection) reportNoHeaders(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, i.Timeout)
	defer cancel()
	resp, err := i.client.Do(i.request(ctx, "ping=check")) // a value that the hub rejects immediately
	if err != nil {
		i.report.Fail("url-silent", "check that the proxy can reach the hub, and that /readyz on the hub's admin listener returns 200", "connected, but no response within %v", i.Timeout)
		return
	}
	resp.Body.Close()
	i.report.Fail("url-buffered", unbuffer, "buffered: the response headers did not arrive within %v, although a short response arrives immediately", i.Timeout)
}

// reportUnreachable reports why there was no response.
func (i *inspection) reportUnreachable(err error) {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // its text has the URL, which may hold a token
	}
	host := i.URL.Host
	var (
		dns       *net.DNSError
		plain     tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &dns):
		i.report.Fail("url-name", "correct --url, or fix DNS resolution on this host", "the name %s does not resolve", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		i.report.Fail("url-refused", "check that the proxy is running and listens on this address", "%s refuses the connection", host)
	case errors.As(err, &authority):
		i.report.Fail("url-tls", "send the complete certificate chain from the proxy; for a private CA, set SSL_CERT_FILE=<CA file>", "the certificate of %s is signed by a CA that this host does not trust", host)
	case errors.As(err, &name):
		i.report.Fail("url-tls", "configure a certificate for that name in the proxy", "the certificate of %s is for another name", host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		i.report.Fail("url-tls", "renew it", "the certificate of %s has expired or is not yet valid", host)
	case errors.As(err, &plain), errors.Is(err, http.ErrSchemeMismatch):
		i.report.Fail("url-tls", "use http:// instead of https://", "%s does not use TLS", host)
	default:
		i.report.Fail("url-unreachable", "see the log of the proxy", "no response from %s: %v", host, err)
	}
}

// hubError returns the error message of a hub in a response, or "" if the response is not from a hub.
func hubError(resp *http.Response) string {
	var body struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 16<<10)).Decode(&body) != nil {
		return ""
	}
	return body.Error
}

// isAboutGroups reports whether the hub has rejected the groups of a user: their number, a name, or how they are listed.
func isAboutGroups(message string) bool {
	return strings.Contains(message, "--max-groups") || strings.Contains(message, "invalid group") ||
		strings.Contains(message, "X-User-Groups") || strings.Contains(message, "is not a list of strings and integers")
}

// reportStatus reports a status other than 200. An EventSource closes permanently on such a status.
func (i *inspection) reportStatus(ctx context.Context, resp *http.Response) {
	status, message := resp.Status, hubError(resp)
	sender := "an intermediary"
	if message != "" {
		sender = "the hub"
		status += ": " + message
	}
	hint := ""
	if message != "" && i.RejectHint != nil {
		hint = i.RejectHint(ctx, message)
	}
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		i.reportRedirect(resp)
	case (code == http.StatusUnauthorized || code == http.StatusForbidden) && isAboutGroups(message):
		if hint == "" {
			hint = "change what authentication returns for this user; the log of the hub has a hint"
		}
		i.report.Fail("url-groups", hint, "%s returned %s", sender, status)
	case code == http.StatusUnauthorized && hint != "":
		i.report.Fail("url-unauthorized", hint, "%s returned %s", sender, status)
	case code == http.StatusForbidden && hint != "":
		i.report.Fail("url-forbidden", hint, "%s returned %s", sender, status)
	case code == http.StatusUnauthorized:
		i.report.Fail("url-unauthorized", i.AuthHint, "%s returned %s", sender, status)
	case code == http.StatusForbidden && message == loopback.HostError:
		i.report.Fail("url-forbidden", "use an --auth mode other than insecure, or set --auth-insecure-anywhere for tests on an isolated network", "%s returned %s", sender, status)
	case code == http.StatusForbidden && message == "":
		i.report.Fail("url-forbidden", "see the log of the proxy, firewall or CDN in front of the hub", "%s returned %s", sender, status)
	case code == http.StatusForbidden && i.Header.Get("Origin") != "":
		i.report.Fail("url-forbidden", "for an origin that is not allowed, start the hub with --allow-origin "+i.Header.Get("Origin")+", or omit this Origin header; for a rejected user, "+i.AuthHint, "%s returned %s", sender, status)
	case code == http.StatusForbidden:
		i.report.Fail("url-forbidden", i.AuthHint+"; for another reason, see the log of the hub", "%s returned %s", sender, status)
	case code == http.StatusNotFound && message != "":
		i.report.Fail("url-path", "pass the path through unchanged (nginx: proxy_pass http://host:port; with nothing after the port), or set the hub's --path to the path that arrives there; it is currently "+i.Path,
			"the hub responds, but it does not serve the stream at the path that the proxy requests")
	case code == http.StatusNotFound:
		i.report.Fail("url-path", "add a rule to the proxy that routes "+i.URL.Path+" to the hub", "the proxy returned %s: the path is not routed to the hub", status)
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		i.report.Fail("url-no-hub", "check that the hub is running at the address configured in the proxy; configure a 200 response with a retry as the fallback, because pages do not reconnect after this status (docs/reverse-proxies.md)",
			"the proxy returned %s: it cannot reach a hub", status)
	default:
		i.report.Fail("url-status", "see the logs of the proxy and the hub", "%s returned %s", sender, status)
	}
}

// reportRedirect reports a redirect: a loop, a wrong URL or a login page.
func (i *inspection) reportRedirect(resp *http.Response) {
	to, err := resp.Location()
	if err != nil {
		i.report.Fail("url-redirect", "see the log of the proxy", "%s without a Location header", resp.Status)
		return
	}
	shown := (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path}).String()
	requested := i.URL
	if to.Scheme == requested.Scheme && to.Host == requested.Host && to.Path == requested.Path {
		i.report.Fail("url-redirect", "remove the redirect for this path; an http-to-https rule loops like this if TLS is terminated before it, so it must check X-Forwarded-Proto",
			"%s to %s, the requested URL itself: this is a redirect loop", resp.Status, shown)
		return
	}
	moved := to.Hostname() == requested.Hostname() && strings.TrimRight(to.Path, "/") == strings.TrimRight(requested.Path, "/")
	if moved {
		i.report.Fail("url-redirect", "use "+shown+" in the page and in --url", "the stream has moved: %s to %s", resp.Status, shown)
		return
	}
	i.report.Fail("url-redirect", i.AuthHint+"; and return 401 instead of a login page for stream requests", "%s to %s, probably a login page", resp.Status, shown)
}
