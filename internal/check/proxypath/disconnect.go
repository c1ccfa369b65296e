package proxypath

import (
	"context"
	"time"
)

// disconnectTimeout is how long a hub may take to notice that a browser has disconnected. It takes milliseconds if the
// proxy closes its own connection, too. Otherwise it takes two pings.
const disconnectTimeout = 2 * time.Second

// streamCount returns how many streams the user has at the hub, or -1 if that is unknown.
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

// checkDisconnect closes the stream and reports whether the hub notices. before is how many streams the user had at the
// hub before this one. In a fleet, another hub may have the stream; then nothing is reported.
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
			i.report.Warn("url-leave", "HAProxy: option abortonclose, in defaults · nginx: no proxy_ignore_client_abort · Apache: a shorter --ping-interval",
				"the hub did not notice within %v that the stream was closed: a disconnected browser occupies a slot until two pings have failed", disconnectTimeout)
			return
		}
		pause(ctx, time.Now().Add(20*time.Millisecond))
	}
	i.report.OK("url-leave", "the hub noticed the closed stream within %v", round(time.Since(closed)))
}
