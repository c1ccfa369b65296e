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

var errNoHeaders = errors.New("nothing came in time")

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

// request is as a browser sends it.
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
		"User-Agent":      {"usercast-check"},
	}}).WithContext(ctx)
	for name, values := range i.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	return r
}

// connect requests the stream. It returns nil if there is none, and reports why.
func (i *inspection) connect(ctx context.Context) *stream {
	within, cancel := context.WithCancelCause(ctx)
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(within, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	timeout := time.AfterFunc(i.Timeout, func() { cancel(errNoHeaders) })
	start := time.Now()
	resp, err := i.client.Do(i.request(traced, ""))
	if !timeout.Stop() && err == nil { // the headers came with the timeout, which ends the body
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
			i.report.Fail("url-unreachable", "is it up, and does a firewall stand between?", "%s cannot be connected to within %v", i.URL.Host, i.Timeout)
		}
		return nil
	}
	s := &stream{resp: resp, took: time.Since(start), cancel: func() { cancel(nil) }}
	if resp.StatusCode != http.StatusOK {
		i.reportStatus(resp)
		s.close()
		return nil
	}
	s.read()
	return s
}

// reportNoHeaders is for a request without a response: whether a short response arrives
// tells if that of the stream is buffered.
func (i *inspection) reportNoHeaders(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, i.Timeout)
	defer cancel()
	resp, err := i.client.Do(i.request(ctx, "ping=check")) // which a hub rejects immediately
	if err != nil {
		i.report.Fail("url-silent", "check that the proxy reaches the hub, and that /readyz on the hub's admin listener returns 200", "connected, and no answer within %v", i.Timeout)
		return
	}
	resp.Body.Close()
	i.report.Fail("url-buffered", unbuffer, "held back: not even the head of the stream came within %v, while a short answer comes through at once", i.Timeout)
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
		i.report.Fail("url-name", "correct --url, or mend the resolver of this machine", "the name %s does not resolve", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		i.report.Fail("url-refused", "is the proxy running, and at this address?", "%s refuses the connection", host)
	case errors.As(err, &authority):
		i.report.Fail("url-tls", "let the proxy send the whole chain of certificates; for an authority of your own, SSL_CERT_FILE=<its PEM file>", "the certificate of %s is signed by an authority that this machine does not know", host)
	case errors.As(err, &name):
		i.report.Fail("url-tls", "let the proxy show a certificate for that name", "the certificate of %s is for another name", host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		i.report.Fail("url-tls", "renew it", "the certificate of %s has run out, or is not valid yet", host)
	case errors.As(err, &plain), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		i.report.Fail("url-tls", "http:// instead of https://?", "%s does not speak TLS", host)
	default:
		i.report.Fail("url-unreachable", "look at the proxy's log", "no answer from %s: %v", host, err)
	}
}

// hubError is the error message of a hub in a response; "" if the response is not a hub's.
func hubError(resp *http.Response) string {
	var body struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 16<<10)).Decode(&body) != nil {
		return ""
	}
	return body.Error
}

// reportStatus is for any status except 200, with which an EventSource is closed permanently.
func (i *inspection) reportStatus(resp *http.Response) {
	status, message := resp.Status, hubError(resp)
	who := "something before the hub"
	if message != "" {
		who = "the hub"
		status += ", " + message
	}
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		i.reportRedirect(resp)
	case code == http.StatusUnauthorized:
		i.report.Fail("url-unauthorized", i.LogIn, "%s answers %s", who, status)
	case code == http.StatusForbidden && message == loopback.HostError:
		i.report.Fail("url-forbidden", "another --auth than insecure; or, to try things out where nobody else can reach it, --auth-insecure-anywhere", "%s answers %s", who, status)
	case code == http.StatusForbidden:
		i.report.Fail("url-forbidden", i.LogIn, "%s answers %s", who, status)
	case code == http.StatusNotFound && message != "":
		i.report.Fail("url-path", "let the proxy pass the path on as it is (nginx: proxy_pass http://host:port; with nothing after the port), or give the hub --path as it arrives there; here it is "+i.Path,
			"the hub is there, and has no stream at the path that the proxy asks for")
	case code == http.StatusNotFound:
		i.report.Fail("url-path", "give the proxy a rule that leads "+i.URL.Path+" to the hub", "the proxy answers %s: the path leads elsewhere", status)
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		i.report.Fail("url-no-hub", "is the hub running, and at the address that the proxy has? Let the proxy answer 200 and a retry instead, for each page gives up for good at this (docs/reverse-proxies.md)",
			"the proxy answers %s: it reaches no hub", status)
	default:
		i.report.Fail("url-status", "see the logs of proxy and hub", "%s answers %s", who, status)
	}
}

// reportRedirect tells a wrong URL from a login page.
func (i *inspection) reportRedirect(resp *http.Response) {
	to, err := resp.Location()
	if err != nil {
		i.report.Fail("url-redirect", "see the log of the proxy", "%s, and nobody says where to", resp.Status)
		return
	}
	shown := (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path}).String()
	requested := i.URL
	if to.Scheme == requested.Scheme && to.Host == requested.Host && to.Path == requested.Path {
		i.report.Fail("url-redirect", "take the redirect away for this path: a rule from http to https goes round like this where TLS ends before it, and it has to look at X-Forwarded-Proto",
			"%s to %s, where it was asked: a page goes round until the browser gives up", resp.Status, shown)
		return
	}
	moved := to.Hostname() == requested.Hostname() && strings.TrimRight(to.Path, "/") == strings.TrimRight(requested.Path, "/")
	if moved {
		i.report.Fail("url-redirect", "open "+shown+" in the page, and here", "the stream is elsewhere: %s to %s", resp.Status, shown)
		return
	}
	i.report.Fail("url-redirect", i.LogIn+"; and let what is in front answer 401 to a stream, where a log-in page is of no use", "%s to %s: a log-in page?", resp.Status, shown)
}
