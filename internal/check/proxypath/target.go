package proxypath

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"time"

	"usercast/internal/finding"
)

// A Target is a stream to inspect. All fields except RejectHint, Header, Watch, Publish with Unknown, and Streams are
// required.
type Target struct {
	URL    *url.URL
	Header http.Header // additional headers of the request, such as cookies

	// The configuration of the hub.
	Path         string        // path of the stream on the hub
	PingInterval time.Duration // interval between two pings of the hub
	AuthHint     string        // the flags that authenticate a request, for advice

	// RejectHint returns advice for a request that the hub rejected with this error message, or "" if it is not known why.
	RejectHint func(ctx context.Context, message string) string

	Timeout time.Duration // for the headers of a response, and an upper limit for data that should arrive immediately
	Watch   time.Duration // how long to watch the idle stream; 0 means slightly longer than a ping interval

	// Publish sends a message to the user of the stream. It returns how many subscribers Redis sent it to, or -1 if that
	// is unknown. Publish is nil without Redis, or if the user is not known. Unknown is the reason for the latter.
	Publish func(ctx context.Context, topic, payload string) (subscribers int64, err error)
	Unknown string

	User       string // set explicitly: Publish sends to this user; "" means the user that the hub authenticates
	StreamUser string // the user of the stream, if it is known and differs from User

	// Streams returns how many streams the user has at the hub. It is nil if the user is not known.
	Streams func(ctx context.Context) (int, error)
}

// Run inspects the stream and reports each finding. No goroutine outlives it.
func (t Target) Run(ctx context.Context, report finding.Report) {
	i := &inspection{Target: t, report: report, token: rand.Text(), client: newClient()}
	defer i.client.CloseIdleConnections()
	before := i.streamCount(ctx)
	s := i.connect(ctx)
	if s == nil {
		return
	}
	defer s.close()
	if i.checkContentType(s) && i.checkFirstBlock(ctx, s) {
		i.checkHeaders(s)
		i.checkEvents(ctx, s)
		if i.checkIdle(ctx, s) {
			i.checkDisconnect(ctx, s, before)
		}
	}
}

// An inspection is the state of one call of Run.
type inspection struct {
	Target
	report finding.Report
	token  string // part of each message that check publishes

	client *http.Client

	received  int  // how many of the published messages have arrived
	explained bool // a finding has explained why no events arrive; checkIdle does not guess
}

// unbuffer lists the settings with which proxies forward data immediately.
const unbuffer = "nginx: proxy_buffering off, or no proxy_ignore_headers X-Accel-Buffering · Caddy: flush_interval -1, no response_buffers or buffer_responses · HAProxy: does not buffer by default · lighttpd: server.stream-response-body = 1 · CDN: no buffering or caching for this path"
