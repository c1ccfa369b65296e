package proxypath

import (
	"context"
	"mime"
	"net/http"
	"strings"
	"time"

	"usercast/internal/loopback"
)

// checkContentType reports whether a response is an event stream, unchanged. It returns whether it can be read.
func (i *inspection) checkContentType(s *stream) bool {
	h := s.resp.Header
	got := h.Get("Content-Type")
	media, _, _ := mime.ParseMediaType(got)
	switch {
	case media == "text/html":
		i.report.Fail("url-no-hub", "give the proxy a rule that leads "+i.URL.Path+" to the hub, before those of the app; where that is a log-in page: "+i.LogIn, "a page of HTML answers, and no hub")
		return false
	case media != "text/event-stream":
		i.report.Fail("url-content-type", "let nothing on the way set Content-Type", "Content-Type is %q, and not text/event-stream: a browser gives up for good", got)
		return false
	case got != "text/event-stream":
		i.report.Warn("url-content-type", "let nothing on the way set Content-Type or a charset (nginx: no charset_types text/event-stream)", "Content-Type is %q: some proxies hold back what is not exactly text/event-stream", got)
	}
	if coding := h.Get("Content-Encoding"); coding != "" && coding != "identity" {
		i.report.Fail("url-compressed", "nginx: gzip off; (and brotli off;) in the location · Caddy: encode without text/event-stream · HAProxy: no compression type text/event-stream · a CDN: no compression for this path",
			"the stream is packed (Content-Encoding: %s) in spite of no-transform: what packs it collects events first", coding)
		return false
	}
	return true
}

// checkHeaders reports headers of the hub that were changed or removed.
func (i *inspection) checkHeaders(s *stream) {
	h := s.resp.Header
	i.checkCacheControl(h)
	if v := h.Get("X-Accel-Buffering"); v != "" && v != "no" { // nginx removes the hub's
		i.report.Warn("url-headers", "let nothing on the way set it", "X-Accel-Buffering is %q, where the hub says no", v)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" {
		i.report.Note("url-headers", "let nothing on the way remove it", "X-Content-Type-Options: nosniff is gone")
	}
	i.checkProtocol(s.resp)
}

func (i *inspection) checkCacheControl(h http.Header) {
	cache := strings.ToLower(strings.Join(h.Values("Cache-Control"), ", "))
	for _, want := range []string{"no-store", "no-transform"} {
		if !strings.Contains(cache, want) {
			i.report.Warn("url-headers", "let nothing on the way set Cache-Control (nginx: no expires or add_header Cache-Control; a CDN: no caching rule for this path)",
				"Cache-Control is %q, and %s of the hub's is gone: something may keep the stream, or change it", cache, want)
			return
		}
	}
}

// checkProtocol reports what the HTTP version means for a browser.
func (i *inspection) checkProtocol(resp *http.Response) {
	local := loopback.IsHost(resp.Request.URL.Host)
	switch {
	case resp.ProtoMajor >= 2:
		i.report.OK("url-protocol", "%s: a browser's tabs share one connection", resp.Proto)
	case resp.Request.URL.Scheme == "https":
		i.report.Note("url-protocol", "nginx: http2 on; (before 1.25.1: listen 443 ssl http2;) · HAProxy: bind … alpn h2,http/1.1 · Caddy does so by itself",
			"%s: a browser opens six connections to an origin, and the seventh tab waits for ever", resp.Proto)
	case !local:
		i.report.Warn("url-protocol", "lead https:// to the hub", "http:// in clear: others on the way read cookies and messages, and browsers do not speak HTTP/2 so: the seventh tab waits for ever")
	}
}

// promptly is the longest time that the network may take: what arrives later was buffered.
const promptly = time.Second

// checkFirstBlock reports whether the first block is that of a hub, and in time. It returns whether the stream can be read on.
func (i *inspection) checkFirstBlock(ctx context.Context, s *stream) bool {
	b, ok, ended := s.wait(time.Now().Add(min(i.Timeout, 3*promptly)))
	switch {
	case ctx.Err() != nil:
		return false
	case ended && s.took > 2*promptly:
		i.report.Fail("url-buffered", unbuffer, "held back: the answer came after %v, when it was over", tenth(s.took))
		return false
	case ended:
		i.report.Fail("url-cut", "look at the logs of proxy and hub", "the stream ended before anything came")
		return false
	case !ok:
		i.report.Fail("url-buffered", unbuffer, "held back: the head came, and the first block, which the hub sends with it, not within %v", min(i.Timeout, 3*promptly))
		return false
	case b.name == "busy":
		i.reportBusy(b.data)
		return false
	case b.retry && b.id == "":
		i.report.Fail("url-no-hub", "is the hub running, and at the address that the proxy has?", "the proxy answers for the hub, as docs/reverse-proxies.md has it: it reaches none")
		return false
	case !b.retry:
		i.report.Fail("url-no-hub", "let the proxy lead "+i.URL.Path+" to the hub", "an event stream, and not one of a hub: it does not begin with retry and id")
		return false
	}
	if late := b.at.Sub(s.opened); late > promptly {
		i.report.Fail("url-buffered", unbuffer, "held back: the first block, which the hub sends with the head, came %s after it", round(late))
		return true
	}
	if s.took > 2*promptly {
		i.report.Warn("url-late", "does the app take long to say who is asking?", "the stream took %v to open", tenth(s.took))
		return true
	}
	i.report.OK("url-open", "the stream opened in %s", round(s.took+b.at.Sub(s.opened)))
	return true
}

// reportBusy reports why a hub rejects the stream temporarily.
func (i *inspection) reportBusy(data string) {
	_, reason, _ := strings.Cut(data, `"reason":"`)
	reason, _, _ = strings.Cut(reason, `"`)
	do := map[string]string{
		"clients":          "raise --max-clients, or the descriptor limit (ulimit -n, LimitNOFILE=)",
		"user-limit":       "close some of this user's streams, or raise --max-clients-per-user",
		"draining":         "the hub is stopping: try again when the new one is there",
		"auth-unavailable": "see the hub's log: the app, or the server of the keys, does not say who is asking",
	}[reason]
	i.report.Fail("url-busy", do, "the hub is there, and says: not now (%s)", reason)
}

// round rounds a duration for people.
func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}
