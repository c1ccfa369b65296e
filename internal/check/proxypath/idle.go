package proxypath

import (
	"context"
	"strings"
	"time"
)

// slack is by how much a ping may be late: more than the wheel that the hub turns for it, and
// what a long way adds.
const slack = 2 * time.Second

// A silence is what a stream was like when it was left alone.
type silence struct {
	pings   int
	bye     string        // the hub's reason to end it, if it did
	cut     bool          // it ended
	age     time.Duration // then
	quiet   time.Duration // since the last byte, then
	watched time.Duration
}

// watch leaves a stream alone for a time.
func (x *examination) watch(ctx context.Context, s *stream, d time.Duration) (found silence) {
	begin := time.Now()
	for until := begin.Add(d); ; {
		b, there, ended := s.wait(until)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return found
		case ended:
			found.cut, found.age, found.quiet = true, now.Sub(s.head), now.Sub(s.last)
			return found
		case !there:
			found.watched = now.Sub(begin)
			return found
		case b.name == "bye":
			_, found.bye, _ = strings.Cut(b.data, `"reason":"`)
			found.bye, _, _ = strings.Cut(found.bye, `"`)
		case b.ping():
			found.pings++
		case strings.Contains(b.data, x.token):
			x.came++ // late, but there
		}
	}
}

// watchFor is how long a quiet stream is looked at.
func (u Target) watchFor() time.Duration {
	if u.Watch > 0 {
		return u.Watch
	}
	return u.PingInterval + slack
}

// Lasts is how long Run takes for a stream that is as it should be.
func (u Target) Lasts() time.Duration {
	if u.Publish == nil {
		return u.watchFor()
	}
	return (staggered-1)*apart + u.watchFor()
}

// quiet looks whether pings come, and whether something cuts the stream; it reports whether that
// is open still.
func (x *examination) quiet(ctx context.Context, s *stream) bool {
	d := x.watchFor()
	found := x.watch(ctx, s, d)
	switch {
	case ctx.Err() != nil:
	case found.bye != "":
		x.tell.Note("url-bye", "", "the hub ended the stream itself: %s", found.bye)
	case found.cut:
		x.cut(ctx, found, d)
	case x.Publish != nil && x.came == 0 && found.pings > 0:
		x.tell.Fail("url-deaf", "is --user the one whose stream it is, and are --redis, --feed and --channel-prefix those of the hub behind this URL?", "pings come through, and none of the published events did")
	case found.pings > 0:
		x.tell.OK("url-quiet", "it stayed open for %v without events, and pings came through", tenth(found.watched))
	case found.watched < x.PingInterval+slack:
		if x.Publish != nil && x.came == 0 {
			x.tell.Fail("url-deaf", "watch for longer, --watch, to tell the causes apart: another user, another Redis, or "+unbuffer, "none of the published events came")
			break
		}
		x.tell.Note("url-quiet", "--watch "+(x.PingInterval+slack).String(), "it stayed open for %v without events; no ping was due yet", tenth(found.watched))
	case x.came > 0:
		x.tell.Fail("url-ping", "give check the --ping-interval of the hub behind this URL; if it is the same, something on the way swallows what is small: "+unbuffer, "events come through at once, and no ping within %v", tenth(found.watched))
	default:
		x.tell.Fail("url-buffered", unbuffer, "held back: neither an event nor a ping came within %v", tenth(found.watched))
	}
	return ctx.Err() == nil && !found.cut
}

// cut says what ended a stream that the hub did not end. Where silence and age differ enough a
// second stream tells them apart, for it gets no events.
func (x *examination) cut(ctx context.Context, first silence, d time.Duration) {
	// A ping came through after a longer silence than the last.
	aged := first.pings > 0 && first.quiet < x.PingInterval*3/4
	if !aged && first.age-first.quiet > apart/2 {
		s := x.open(ctx)
		if s == nil {
			return // said why
		}
		second := x.watch(ctx, s, d)
		s.close()
		aged = second.cut && (second.age-first.age).Abs() < (second.age-first.quiet).Abs()
		first.quiet = max(first.quiet, second.quiet) // what was late on its way made it look shorter
	}
	if ctx.Err() != nil {
		return
	}
	if aged {
		x.tell.Fail("url-age-cut", "take the limit away (Caddy: no write timeout under servers, HAProxy: no timeout http-keep-alive or tunnel this short); where it cannot be (Cloud Run, a cloud's balancer), --max-age below it ends streams cleanly",
			"the stream was cut when it was %v old, silent or not", tenth(first.age))
		return
	}
	x.tell.Fail("url-idle-cut", "raise the proxy's timeout above the ping interval (nginx: proxy_read_timeout 60s; HAProxy: timeout server 60s, timeout client 60s; Caddy: read_timeout; a balancer: idle timeout), or give the hub "+x.below(first.quiet),
		"the stream was cut after %v of silence, and the hub pings every %v", tenth(first.quiet), x.PingInterval)
}

// below is a ping interval that fits into a silence.
func (x *examination) below(silence time.Duration) string {
	interval := silence / 2
	if interval > 2*time.Second {
		interval = interval.Truncate(time.Second)
	}
	return "--ping-interval " + interval.Round(10*time.Millisecond).String()
}

func tenth(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(10 * time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}
