package proxypath

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Events that are published at intervals but arrive together were buffered.
const (
	eventCount   = 3
	interval     = 300 * time.Millisecond
	eventTimeout = 5 * time.Second // for the last of them
)

// Topic is the topic of the events, unless the URL selects another one. Pages of the user that select other topics do
// not receive them.
const Topic = "usercast-check"

// topic returns a topic that the stream receives.
func (i *inspection) topic() string {
	if topics := i.URL.Query()["topic"]; len(topics) > 0 {
		return topics[0]
	}
	return Topic
}

// payload returns the payload of the nth event.
func (i *inspection) payload(n int) string {
	return fmt.Sprintf(`{"usercast":"check","event":%d,"token":"%s"}`, n, i.token)
}

// checkEvents publishes events and reports when each of them arrives.
func (i *inspection) checkEvents(ctx context.Context, s *stream) {
	if i.Publish == nil {
		if i.Unknown != "" {
			i.report.Note("url-user", "use --user <id>", "%s: the delivery of events was not tested", i.Unknown)
		}
		return
	}
	var sent, received [eventCount]time.Time
	subscribers := int64(-1)
	for n := range eventCount {
		sent[n] = time.Now()
		var err error
		if subscribers, err = i.Publish(ctx, i.topic(), i.payload(n)); err != nil {
			if ctx.Err() == nil {
				i.report.Fail("url-publish", "see the Redis findings above", "cannot publish events: %v", err)
			}
			i.Publish, i.explained = nil, true
			return
		}
		if n < eventCount-1 {
			next := sent[n].Add(interval)
			i.collect(s, &received, next)
			pause(ctx, next)
		}
	}
	i.collect(s, &received, time.Now().Add(min(i.Timeout, eventTimeout)))
	if ctx.Err() == nil {
		i.reportEvents(sent, received, subscribers)
	}
}

// pause waits until the given time, or until ctx ends.
func pause(ctx context.Context, until time.Time) {
	select {
	case <-time.After(time.Until(until)):
	case <-ctx.Done():
	}
}

// collect receives events until all have arrived, until the given time, or until the stream ends. checkIdle reports the
// end of the stream.
func (i *inspection) collect(s *stream, received *[eventCount]time.Time, until time.Time) {
	for i.received < eventCount {
		b, ok, _ := s.wait(until)
		if !ok {
			return
		}
		for n := range eventCount {
			if b.data == i.payload(n) && received[n].IsZero() {
				received[n] = b.at
				i.received++
			}
		}
	}
}

// reportEvents reports buffering and delays, which it derives from the times.
func (i *inspection) reportEvents(sent, received [eventCount]time.Time, subscribers int64) {
	var late []time.Duration
	var words []string
	for n, at := range received {
		if !at.IsZero() {
			late = append(late, max(0, at.Sub(sent[n])))
			words = append(words, round(late[len(late)-1]).String())
		}
	}
	switch {
	case len(late) == 0 && subscribers == 0:
		i.report.Fail("url-other-redis", "run check with the --redis and --channel-prefix of the hub behind this URL", "no event arrived: the channel does not have a subscriber in this Redis, so the hub behind the URL uses another Redis or another prefix")
		i.Publish, i.explained = nil, true
		return
	case len(late) == 0:
		return // checkIdle reports why
	case len(late) < eventCount:
		i.report.Fail("url-buffered", unbuffer, "buffered: only %d of %d events arrived within %v", len(late), eventCount, eventTimeout)
		return
	}
	worst, spread := slices.Max(late), received[eventCount-1].Sub(received[0])
	shown := strings.Join(words, ", ")
	switch {
	case spread < (eventCount-1)*interval/2 && worst > interval/2:
		i.report.Fail("url-buffered", unbuffer, "buffered: %d events published %v apart arrived together, %s late", eventCount, interval, shown)
	case worst > promptly:
		i.report.Warn("url-late", "check the network latency, and the load of the proxy and the hub", "%d events published %v apart arrived %s late", eventCount, interval, shown)
	default:
		i.report.OK("url-events", "%d events, published %v apart, arrived after %s", eventCount, interval, shown)
	}
}

// Shown returns a URL without its query and its user information, which may be secret.
func Shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
