package proxypath

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"time"

	"usercast/internal/advice"
)

// URL is a stream to look at. All fields but Header, Watch, Publish with Unknown, and Streams are required.
type Target struct {
	URL    *url.URL
	Header http.Header // what a browser would send by itself, its cookies for one

	// What the hub was given.
	Path         string        // of the stream there
	PingInterval time.Duration // it is never silent for longer
	LogIn        string        // how to get in, for who is not let in

	Timeout time.Duration // until the head of an answer, and at most for what should come at once
	Watch   time.Duration // how long to look at the quiet stream; 0: a little over a ping interval

	// Publish sends a message to the user whose stream it is, and says how many
	// subscribers Redis had for it; -1: unknown. Nil: there is nowhere to
	// send it, or that user is not known, of which Unknown says why.
	Publish func(ctx context.Context, topic, payload string) (heard int64, err error)
	Unknown string

	// Streams is how many streams that user has at a hub that can be asked. Nil: none can.
	Streams func(ctx context.Context) (int, error)
}

// Run tells all that it finds, and returns when nothing of it runs any more.
func (u Target) Run(ctx context.Context, tell advice.Tell) {
	x := &examination{Target: u, tell: tell, token: rand.Text(), client: newClient()}
	defer x.client.CloseIdleConnections()
	before := x.places(ctx)
	s := x.open(ctx)
	if s == nil {
		return
	}
	defer s.close()
	if x.head(s) && x.opening(ctx, s) {
		x.headers(s)
		x.events(ctx, s)
		if x.quiet(ctx, s) {
			x.leave(ctx, s, before)
		}
	}
}

// examination is one URL's under way.
type examination struct {
	Target
	tell  advice.Tell
	token string // tells our messages from others

	client *http.Client

	came int // of our messages
}

// Where something on the way is to be told to hand on each byte as it comes.
const unbuffer = "nginx: proxy_buffering off, or no proxy_ignore_headers X-Accel-Buffering · Caddy: flush_interval -1, no response_buffers or buffer_responses · HAProxy: nothing buffers by itself · a CDN: no buffering or caching for this path"
