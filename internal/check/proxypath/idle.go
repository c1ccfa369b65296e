package proxypath

import (
	"context"
	"strings"
	"time"
)

// pingTolerance is how late a ping may be: more than the granularity of the hub's timers and the latency of a
// long path.
const pingTolerance = 2 * time.Second

// An idlePeriod is what happened on a stream while no events were published.
type idlePeriod struct {
	pings   int
	bye     string        // the reason of a goodbye of the hub
	closed  bool          // the stream ended
	age     time.Duration // of the stream, when it ended
	idle    time.Duration // since the last byte, when it ended
	watched time.Duration
}

// watchIdle waits for d and returns what arrives on the stream.
func (i *inspection) watchIdle(ctx context.Context, s *stream, d time.Duration) (found idlePeriod) {
	begin := time.Now()
	for until := begin.Add(d); ; {
		b, ok, ended := s.wait(until)
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return found
		case ended:
			found.closed, found.age, found.idle = true, now.Sub(s.opened), now.Sub(s.last)
			return found
		case !ok:
			found.watched = now.Sub(begin)
			return found
		case b.name == "bye":
			_, found.bye, _ = strings.Cut(b.data, `"reason":"`)
			found.bye, _, _ = strings.Cut(found.bye, `"`)
		case b.isPing():
			found.pings++
		case strings.Contains(b.data, i.token):
			i.received++ // late
		}
	}
}

// watchFor is how long an idle stream is watched.
func (t Target) watchFor() time.Duration {
	if t.Watch > 0 {
		return t.Watch
	}
	return t.PingInterval + pingTolerance
}

// Lasts is how long Run takes for a stream without problems.
func (t Target) Lasts() time.Duration {
	if t.Publish == nil {
		return t.watchFor()
	}
	return (eventCount-1)*interval + t.watchFor()
}

// checkIdle reports whether pings arrive and whether the stream is closed while it is idle. It returns whether
// the stream is still open.
func (i *inspection) checkIdle(ctx context.Context, s *stream) bool {
	d := i.watchFor()
	found := i.watchIdle(ctx, s, d)
	switch {
	case ctx.Err() != nil:
	case found.bye != "":
		i.report.Note("url-bye", "", "the hub ended the stream itself: %s", found.bye)
	case found.closed:
		i.reportCut(ctx, found, d)
	case i.Publish != nil && i.received == 0 && found.pings > 0:
		i.report.Fail("url-deaf", "is --user the one whose stream it is, and are --redis, --feed and --channel-prefix those of the hub behind this URL?", "pings come through, and none of the published events did")
	case found.pings > 0:
		i.report.OK("url-quiet", "it stayed open for %v without events, and pings came through", tenth(found.watched))
	case found.watched < i.PingInterval+pingTolerance:
		if i.Publish != nil && i.received == 0 {
			i.report.Fail("url-deaf", "watch for longer, --watch, to tell the causes apart: another user, another Redis, or "+unbuffer, "none of the published events came")
			break
		}
		i.report.Note("url-quiet", "--watch "+(i.PingInterval+pingTolerance).String(), "it stayed open for %v without events; no ping was due yet", tenth(found.watched))
	case i.received > 0:
		i.report.Fail("url-ping", "give check the --ping-interval of the hub behind this URL; if it is the same, something on the way swallows what is small: "+unbuffer, "events come through at once, and no ping within %v", tenth(found.watched))
	default:
		i.report.Fail("url-buffered", unbuffer, "held back: neither an event nor a ping came within %v", tenth(found.watched))
	}
	return ctx.Err() == nil && !found.closed
}

// reportCut reports what closed a stream that the hub did not end. Where the idle time and the age differ enough, a
// second stream, which gets no events, tells which of them was the reason.
func (i *inspection) reportCut(ctx context.Context, first idlePeriod, d time.Duration) {
	// A ping arrived after a longer idle time than the last one.
	aged := first.pings > 0 && first.idle < i.PingInterval*3/4
	if !aged && first.age-first.idle > interval/2 {
		s := i.connect(ctx)
		if s == nil {
			return // reported by connect
		}
		second := i.watchIdle(ctx, s, d)
		s.close()
		aged = second.closed && (second.age-first.age).Abs() < (second.age-first.idle).Abs()
		first.idle = max(first.idle, second.idle) // bytes that were late made it look shorter
	}
	if ctx.Err() != nil {
		return
	}
	if aged {
		i.report.Fail("url-age-cut", "take the limit away (Caddy: no write timeout under servers, HAProxy: no timeout http-keep-alive or tunnel this short); where it cannot be (Cloud Run, a cloud's balancer), --max-age below it ends streams cleanly",
			"the stream was cut when it was %v old, silent or not", tenth(first.age))
		return
	}
	i.report.Fail("url-idle-cut", "raise the proxy's timeout above the ping interval (nginx: proxy_read_timeout 60s; HAProxy: timeout server 60s, timeout client 60s; Caddy: read_timeout; a balancer: idle timeout), or give the hub "+i.intervalBelow(first.idle),
		"the stream was cut after %v of silence, and the hub pings every %v", tenth(first.idle), i.PingInterval)
}

// intervalBelow is a ping interval that is shorter than an idle timeout.
func (i *inspection) intervalBelow(timeout time.Duration) string {
	interval := timeout / 2
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
