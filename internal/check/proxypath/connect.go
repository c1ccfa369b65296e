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
)

var errNoHead = errors.New("nothing came in time")

// newClient makes a client that connects as a browser does: with what HTTP version the server
// prefers, and over the proxy of the environment, if there is one.
func newClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:              http.ProxyFromEnvironment,
			ForceAttemptHTTP2:  true,
			DisableCompression: true, // what is packed is to be seen
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// request is a browser's.
func (x *examination) request(ctx context.Context, query string) *http.Request {
	u := *x.URL
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
	for name, values := range x.Header {
		r.Header[http.CanonicalHeaderKey(name)] = values
	}
	return r
}

// open asks for the stream; nil: there is none, which has been told.
func (x *examination) open(ctx context.Context) *stream {
	within, cancel := context.WithCancelCause(ctx)
	var connected atomic.Bool
	traced := httptrace.WithClientTrace(within, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	late := time.AfterFunc(x.Timeout, func() { cancel(errNoHead) })
	defer late.Stop()
	asked := time.Now()
	resp, err := x.client.Do(x.request(traced, ""))
	if err != nil {
		defer cancel(nil)
		switch {
		case ctx.Err() != nil:
		case context.Cause(within) != errNoHead:
			x.unreachable(err)
		case connected.Load():
			x.noHead(ctx)
		default:
			x.tell.Fail("url-unreachable", "is it up, and does a firewall stand between?", "%s cannot be connected to within %v", x.URL.Host, x.Timeout)
		}
		return nil
	}
	s := &stream{resp: resp, took: time.Since(asked), cancel: func() { cancel(nil) }}
	if resp.StatusCode != http.StatusOK {
		x.refused(resp)
		s.close()
		return nil
	}
	s.read()
	return s
}

// noHead is for a request to which nothing was answered: whether a short answer comes
// through tells if the stream's is held back.
func (x *examination) noHead(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, x.Timeout)
	defer cancel()
	resp, err := x.client.Do(x.request(ctx, "ping=check")) // which a hub refuses at once
	if err != nil {
		x.tell.Fail("url-silent", "check that the proxy reaches the hub, and that /readyz on the hub's admin listener returns 200", "connected, and no answer within %v", x.Timeout)
		return
	}
	resp.Body.Close()
	x.tell.Fail("url-buffered", unbuffer, "held back: not even the head of the stream came within %v, while a short answer comes through at once", x.Timeout)
}

// unreachable says why there was no answer.
func (x *examination) unreachable(err error) {
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err // what it says of the URL may hold a token
	}
	host := x.URL.Host
	var (
		dns       *net.DNSError
		plain     tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		name      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	switch {
	case errors.As(err, &dns):
		x.tell.Fail("url-name", "correct --url, or mend the resolver of this machine", "the name %s does not resolve", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		x.tell.Fail("url-refused", "is the proxy running, and at this address?", "%s refuses the connection", host)
	case errors.As(err, &authority):
		x.tell.Fail("url-tls", "let the proxy send the whole chain of certificates; for an authority of your own, SSL_CERT_FILE=<its PEM file>", "the certificate of %s is signed by an authority that this machine does not know", host)
	case errors.As(err, &name):
		x.tell.Fail("url-tls", "let the proxy show a certificate for that name", "the certificate of %s is for another name", host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		x.tell.Fail("url-tls", "renew it", "the certificate of %s has run out, or is not valid yet", host)
	case errors.As(err, &plain), strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		x.tell.Fail("url-tls", "http:// instead of https://?", "%s does not speak TLS", host)
	default:
		x.tell.Fail("url-unreachable", "look at the proxy's log", "no answer from %s: %v", host, err)
	}
}

// sentence is what a hub says to a request that it refuses; "": it was no hub that answered.
func sentence(resp *http.Response) string {
	var answer struct {
		Error string `json:"error"`
	}
	if json.NewDecoder(io.LimitReader(resp.Body, 16<<10)).Decode(&answer) != nil {
		return ""
	}
	return answer.Error
}

// refused is for any status but 200, which ends an EventSource for good.
func (x *examination) refused(resp *http.Response) {
	status, says := resp.Status, sentence(resp)
	who := "something before the hub"
	if says != "" {
		who = "the hub"
		status += ", " + says
	}
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		x.redirected(resp)
	case code == http.StatusUnauthorized:
		x.tell.Fail("url-unauthorized", x.LogIn, "%s answers %s", who, status)
	case code == http.StatusForbidden && strings.Contains(says, "this machine"):
		x.tell.Fail("url-forbidden", "another --auth than insecure; or, to try things out where nobody else can reach it, --auth-insecure-anywhere", "%s answers %s", who, status)
	case code == http.StatusForbidden:
		x.tell.Fail("url-forbidden", x.LogIn, "%s answers %s", who, status)
	case code == http.StatusNotFound && says != "":
		x.tell.Fail("url-path", "let the proxy pass the path on as it is (nginx: proxy_pass http://host:port; with nothing after the port), or give the hub --path as it arrives there; here it is "+x.Path,
			"the hub is there, and has no stream at the path that the proxy asks for")
	case code == http.StatusNotFound:
		x.tell.Fail("url-path", "give the proxy a rule that leads "+x.URL.Path+" to the hub", "the proxy answers %s: the path leads elsewhere", status)
	case code == http.StatusBadGateway, code == http.StatusServiceUnavailable, code == http.StatusGatewayTimeout:
		x.tell.Fail("url-no-hub", "is the hub running, and at the address that the proxy has? Let the proxy answer 200 and a retry instead, for each page gives up for good at this (docs/proxies.md)",
			"the proxy answers %s: it reaches no hub", status)
	default:
		x.tell.Fail("url-status", "see the logs of proxy and hub", "%s answers %s", who, status)
	}
}

// redirected tells a wrong URL from a log-in page.
func (x *examination) redirected(resp *http.Response) {
	to, err := resp.Location()
	if err != nil {
		x.tell.Fail("url-redirect", "see the log of the proxy", "%s, and nobody says where to", resp.Status)
		return
	}
	shown := (&url.URL{Scheme: to.Scheme, Host: to.Host, Path: to.Path}).String()
	asked := x.URL
	if to.Scheme == asked.Scheme && to.Host == asked.Host && to.Path == asked.Path {
		x.tell.Fail("url-redirect", "take the redirect away for this path: a rule from http to https goes round like this where TLS ends before it, and it has to look at X-Forwarded-Proto",
			"%s to %s, where it was asked: a page goes round until the browser gives up", resp.Status, shown)
		return
	}
	moved := to.Hostname() == asked.Hostname() && strings.TrimRight(to.Path, "/") == strings.TrimRight(asked.Path, "/")
	if moved {
		x.tell.Fail("url-redirect", "open "+shown+" in the page, and here", "the stream is elsewhere: %s to %s", resp.Status, shown)
		return
	}
	x.tell.Fail("url-redirect", x.LogIn+"; and let what is in front answer 401 to a stream, where a log-in page is of no use", "%s to %s: a log-in page?", resp.Status, shown)
}
