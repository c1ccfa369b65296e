package proxypath

import (
	"context"
	"strings"
	"time"
)

// pingTolerance is how late a ping may be. It exceeds the granularity of the hub's timers and the latency of long network
// paths.
const pingTolerance = 2 * time.Second

// An idlePeriod records what happened on a stream while no events were published.
type idlePeriod struct {
	pings   int
	bye     string        // the reason of the hub's bye event; "" without one
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
			i.received++ // an event that arrived late
		}
	}
}

// watchFor returns how long an idle stream is watched.
func (t Target) watchFor() time.Duration {
	if t.Watch > 0 {
		return t.Watch
	}
	return t.PingInterval + pingTolerance
}

// Lasts returns how long Run takes for a stream without problems.
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
		i.report.Note("url-bye", "", "the hub closed the stream (bye: %s)", found.bye)
	case found.closed:
		i.reportCut(ctx, found, d)
	case i.Publish != nil && i.received == 0 && i.StreamUser != "":
		i.report.Fail("url-deaf", "use --user "+i.StreamUser, "the events were published to user %q (--user), but the stream is of user %q", i.User, i.StreamUser)
	case i.Publish != nil && i.received == 0 && found.pings > 0:
		i.report.Fail("url-deaf", "check that --user is the user of the stream, and that --redis, --feed and --channel-prefix match the hub behind this URL",
			"pings arrive, but the published events did not")
	case found.pings > 0:
		i.report.OK("url-quiet", "the idle stream stayed open for %v and received pings", tenth(found.watched))
	case found.watched < i.PingInterval+pingTolerance:
		if i.Publish != nil && i.received == 0 {
			i.report.Fail("url-deaf", "increase --watch to distinguish the causes: another user, another Redis, or buffering: "+unbuffer, "the published events did not arrive")
			break
		}
		if i.explained {
			break
		}
		i.report.Note("url-quiet", "use --watch "+(i.PingInterval+pingTolerance).String(), "the idle stream stayed open for %v; no ping was due yet", tenth(found.watched))
	case i.explained:
		i.report.Fail("url-ping", "run check again after fixing the finding above", "no ping arrived within %v", tenth(found.watched))
	case i.received > 0:
		i.report.Fail("url-ping", "run check with the --ping-interval of the hub behind this URL; if it is the same, an intermediary buffers small writes: "+unbuffer, "events arrive immediately, but no ping arrived within %v", tenth(found.watched))
	case i.Publish == nil:
		i.report.Fail("url-buffered", unbuffer, "buffered: no ping arrived within %v", tenth(found.watched))
	case i.User != "":
		i.report.Fail("url-buffered", "check that --user is the user of the stream; if it is, turn off buffering: "+unbuffer,
			"neither events nor pings arrived within %v: an intermediary buffers them, or the user of the stream is not %q", tenth(found.watched), i.User)
	default:
		i.report.Fail("url-buffered", unbuffer, "buffered: neither events nor pings arrived within %v", tenth(found.watched))
	}
	return ctx.Err() == nil && !found.closed
}

// reportCut reports what closed a stream that the hub did not close: an idle timeout or a limit of the age. If the idle
// time and the age differ enough, it opens a second stream without events to distinguish them.
func (i *inspection) reportCut(ctx context.Context, first idlePeriod, d time.Duration) {
	// The stream had survived a longer idle time before.
	aged := first.pings > 0 && first.idle < i.PingInterval*3/4
	if !aged && first.age-first.idle > interval/2 {
		s := i.connect(ctx)
		if s == nil {
			return // reported by connect
		}
		second := i.watchIdle(ctx, s, d)
		s.close()
		aged = second.closed && (second.age-first.age).Abs() < (second.age-first.idle).Abs()
		first.idle = max(first.idle, second.idle) // late bytes made the first idle time seem shorter
	}
	if ctx.Err() != nil {
		return
	}
	if aged {
		i.report.Fail("url-age-cut", "remove the limit (Caddy: no write timeout under servers; HAProxy: no timeout http-keep-alive or tunnel this short); if that is impossible (Cloud Run, cloud load balancers), set --max-age below it so that streams end cleanly",
			"the connection was closed at an age of %v, regardless of traffic", tenth(first.age))
		return
	}
	i.report.Fail("url-idle-cut", "raise the proxy's idle timeout above the ping interval (nginx: proxy_read_timeout 60s; HAProxy: timeout server 60s, timeout client 60s; Caddy: read_timeout; Apache: ProxyTimeout 60; lighttpd: server.max-write-idle; load balancer: idle timeout), or run the hub with "+i.intervalBelow(first.idle),
		"the connection was closed after %v without traffic, but the hub pings every %v", tenth(first.idle), i.PingInterval)
}

// intervalBelow returns the flag for a ping interval that is shorter than an idle timeout.
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
