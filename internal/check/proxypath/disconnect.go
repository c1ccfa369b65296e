package proxypath

import (
	"context"
	"time"
)

// disconnectTimeout is how long a hub may take to notice that a browser has disconnected. If the proxy closes its
// connection too, that takes milliseconds; otherwise it takes two pings.
const disconnectTimeout = 2 * time.Second

// streamCount is how many streams the user has at the hub; -1: unknown.
func (i *inspection) streamCount(ctx context.Context) int {
	if i.Streams == nil {
		return -1
	}
	n, err := i.Streams(ctx)
	if err != nil {
		return -1
	}
	return n
}

// checkDisconnect closes the stream and reports whether the hub notices. before is how many streams
// the user had at the hub before this one: another hub of a fleet may have it.
func (i *inspection) checkDisconnect(ctx context.Context, s *stream, before int) {
	open := before >= 0 && i.streamCount(ctx) == before+1
	s.close()
	if !open {
		return
	}
	closed := time.Now()
	for {
		n := i.streamCount(ctx)
		if n < 0 || ctx.Err() != nil {
			return
		}
		if n <= before {
			break
		}
		if time.Since(closed) > disconnectTimeout {
			i.report.Warn("url-leave", "HAProxy: option abortonclose, in defaults · nginx: no proxy_ignore_client_abort",
				"the hub was not told within %v that the stream was closed: until two pings have failed it holds the place of a browser that has left", disconnectTimeout)
			return
		}
		pause(ctx, time.Now().Add(20*time.Millisecond))
	}
	i.report.OK("url-leave", "the hub knew within %v that the stream was closed", round(time.Since(closed)))
}
