package proxypath

import (
	"context"
	"time"
)

// leaving is how long a hub may take to learn that a browser has left, before it is said. Over a
// good way it is milliseconds; otherwise it takes two pings.
const leaving = 2 * time.Second

// places is how many streams the user has at the hub that can be asked; -1: it is not known.
func (x *examination) places(ctx context.Context) int {
	if x.Streams == nil {
		return -1
	}
	n, err := x.Streams(ctx)
	if err != nil {
		return -1
	}
	return n
}

// leave closes the stream and looks whether the hub learns of it. Before is how many streams
// the user had at the hub before this one: another hub of a fleet may have got it.
func (x *examination) leave(ctx context.Context, s *stream, before int) {
	open := before >= 0 && x.places(ctx) == before+1
	s.close()
	if !open {
		return
	}
	closed := time.Now()
	for {
		n := x.places(ctx)
		if n < 0 || ctx.Err() != nil {
			return
		}
		if n <= before {
			break
		}
		if time.Since(closed) > leaving {
			x.tell.Warn("url-leave", "HAProxy: option abortonclose, in defaults · nginx: no proxy_ignore_client_abort",
				"the hub was not told within %v that the stream was closed: until two pings have failed it holds the place of a browser that has left", leaving)
			return
		}
		pause(ctx, time.Now().Add(20*time.Millisecond))
	}
	x.tell.OK("url-leave", "the hub knew within %v that the stream was closed", round(time.Since(closed)))
}
