package proxypath

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"time"

	"usercast/internal/finding"
)

// A Target is a stream to inspect. All fields except Header, Watch, Publish with Unknown, and Streams are required.
type Target struct {
	URL    *url.URL
	Header http.Header // what a browser sends in addition, such as cookies

	// The configuration of the hub.
	Path         string        // of the stream on the hub
	PingInterval time.Duration // between two pings of the hub
	LogIn        string        // how to authenticate, for a request that is rejected

	Timeout time.Duration // for the headers of a response, and at most for what should arrive immediately
	Watch   time.Duration // how long to watch the idle stream; 0: a little over a ping interval

	// Publish sends a message to the user of the stream, and returns how many
	// subscribers Redis had for it, or -1 if that is unknown. It is nil without a Redis,
	// or if the user is not known; Unknown says why.
	Publish func(ctx context.Context, topic, payload string) (subscribers int64, err error)
	Unknown string

	// Streams returns how many streams the user has at the hub. Nil: the hub cannot be reached.
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

// An inspection is one Run.
type inspection struct {
	Target
	report finding.Report
	token  string // is in each message that check publishes

	client *http.Client

	received int // of the messages that check published
}

// unbuffer is how each proxy is configured to forward each byte as it arrives.
const unbuffer = "nginx: proxy_buffering off, or no proxy_ignore_headers X-Accel-Buffering · Caddy: flush_interval -1, no response_buffers or buffer_responses · HAProxy: nothing buffers by itself · a CDN: no buffering or caching for this path"
