package proxypath

import (
	"context"
	"mime"
	"net/http"
	"strings"
	"time"

	"usercast/internal/loopback"
)

// checkContentType reports whether a response is an unchanged event stream. It returns whether the stream can be read.
func (i *inspection) checkContentType(s *stream) bool {
	h := s.resp.Header
	got := h.Get("Content-Type")
	media, _, _ := mime.ParseMediaType(got)
	switch {
	case media == "text/html":
		i.report.Fail("url-no-hub", "add a rule to the proxy that routes "+i.URL.Path+" to the hub, before the rules for the app; if the response is a login page: "+i.AuthHint,
			"the response is an HTML page, not an event stream")
		return false
	case media != "text/event-stream":
		i.report.Fail("url-content-type", "remove whatever sets Content-Type between hub and browser", "Content-Type is %q instead of text/event-stream: browsers close the stream permanently", got)
		return false
	case got != "text/event-stream":
		i.report.Warn("url-content-type", "do not set Content-Type or a charset in the proxy (nginx: no charset_types text/event-stream)",
			"Content-Type is %q: some proxies buffer anything other than exactly text/event-stream", got)
	}
	if coding := h.Get("Content-Encoding"); coding != "" && coding != "identity" {
		i.report.Fail("url-compressed", "nginx: gzip off; (and brotli off;) in the location · Caddy: encode without text/event-stream · HAProxy: no compression type text/event-stream · Apache: SetEnv no-gzip 1 · CDN: no compression for this path",
			"the stream is compressed (Content-Encoding: %s) despite no-transform: compression buffers events", coding)
		return false
	}
	return true
}

// checkHeaders reports headers of the hub that an intermediary changed or removed.
func (i *inspection) checkHeaders(s *stream) {
	h := s.resp.Header
	i.checkCacheControl(h)
	if v := h.Get("X-Accel-Buffering"); v != "" && v != "no" { // nginx removes the header of the hub
		i.report.Warn("url-headers", "do not set this header in the proxy", "X-Accel-Buffering is %q, but the hub sends \"no\"", v)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" {
		i.report.Note("url-headers", "do not remove this header in the proxy", "X-Content-Type-Options: nosniff is missing")
	}
	i.checkProtocol(s.resp)
}

func (i *inspection) checkCacheControl(h http.Header) {
	cache := strings.ToLower(strings.Join(h.Values("Cache-Control"), ", "))
	for _, want := range []string{"no-store", "no-transform"} {
		if !strings.Contains(cache, want) {
			i.report.Warn("url-headers", "do not set Cache-Control in the proxy (nginx: no expires or add_header Cache-Control; CDN: no caching rule for this path)",
				"Cache-Control is %q and lacks the hub's %s: an intermediary may cache or modify the stream", cache, want)
			return
		}
	}
}

// checkProtocol reports the HTTP version and its consequences for browsers.
func (i *inspection) checkProtocol(resp *http.Response) {
	local := loopback.IsHost(resp.Request.URL.Host)
	switch {
	case resp.ProtoMajor >= 2:
		i.report.OK("url-protocol", "%s: all tabs of a browser share one connection", resp.Proto)
	case resp.Request.URL.Scheme == "https":
		i.report.Note("url-protocol", "nginx: http2 on; (before 1.25.1: listen 443 ssl http2;) · HAProxy: bind … alpn h2,http/1.1 · Caddy: enabled by default",
			"%s: a browser opens at most six connections per origin, so the seventh tab hangs", resp.Proto)
	case !local:
		i.report.Warn("url-protocol", "serve the stream over https://",
			"plain http://: cookies and messages are readable on the network path, and browsers do not use HTTP/2, so the seventh tab hangs")
	}
}

// promptly is the maximum latency of the network. Data that arrives later was buffered.
const promptly = time.Second

// checkFirstBlock reports whether the first block is from a hub and arrives in time. It returns whether the inspection of
// the stream can continue.
func (i *inspection) checkFirstBlock(ctx context.Context, s *stream) bool {
	b, ok, ended := s.wait(time.Now().Add(min(i.Timeout, 3*promptly)))
	switch {
	case ctx.Err() != nil:
		return false
	case ended && s.took > 2*promptly:
		i.report.Fail("url-buffered", unbuffer, "buffered: the response arrived after %v, when the stream had already ended", tenth(s.took))
		return false
	case ended:
		i.report.Fail("url-cut", "see the logs of the proxy and the hub", "the stream ended before any data arrived")
		return false
	case !ok:
		i.report.Fail("url-buffered", unbuffer, "buffered: the headers arrived, but the first block, which the hub sends with them, did not arrive within %v", min(i.Timeout, 3*promptly))
		return false
	case b.name == "busy":
		i.reportBusy(b.data)
		return false
	case b.retry && b.id == "":
		i.report.Fail("url-no-hub", "check that the hub is running at the address configured in the proxy", "the proxy sent its fallback response (docs/reverse-proxies.md) because it cannot reach a hub")
		return false
	case !b.retry:
		i.report.Fail("url-no-hub", "route "+i.URL.Path+" to the hub in the proxy", "the event stream is not from a hub: its first block lacks a retry field")
		return false
	}
	if late := b.at.Sub(s.opened); late > promptly {
		i.report.Fail("url-buffered", unbuffer, "buffered: the first block, which the hub sends with the headers, arrived %s after them", round(late))
		return true
	}
	if s.took > 2*promptly {
		i.report.Warn("url-late", "check how long the app takes to answer session checks", "the stream took %v to open", tenth(s.took))
		return true
	}
	i.report.OK("url-open", "the stream opened in %s", round(s.took+b.at.Sub(s.opened)))
	return true
}

// reportBusy reports why a hub temporarily rejected the stream.
func (i *inspection) reportBusy(data string) {
	_, reason, _ := strings.Cut(data, `"reason":"`)
	reason, _, _ = strings.Cut(reason, `"`)
	do := map[string]string{
		"clients":          "raise --max-clients, or the limit of file descriptors (ulimit -n, LimitNOFILE=)",
		"user-limit":       "close some of this user's streams, or raise --max-clients-per-user",
		"draining":         "the hub is shutting down: retry when the new one is running",
		"expired":          "use a token that is valid now: copy it from a browser again",
		"auth-unavailable": "see the hub's log: the app or the JWKS endpoint is unavailable",
	}[reason]
	i.report.Fail("url-busy", do, "the hub temporarily rejected the stream (busy: %s)", reason)
}

// round rounds a duration for people.
func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
