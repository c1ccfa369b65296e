package proxypath

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Events are published so many, and so far apart: what arrives together was held back.
const (
	staggered = 3
	apart     = 300 * time.Millisecond
	patience  = 5 * time.Second // for the last of them
)

// Topic is that of what is published, unless the URL asks for another: pages of that
// user that ask for topics do not see it.
const Topic = "usercast-check"

// topic is one that the stream lets through.
func (x *examination) topic() string {
	if topics := x.URL.Query()["topic"]; len(topics) > 0 {
		return topics[0]
	}
	return Topic
}

// payload is the nth event's.
func (x *examination) payload(n int) string {
	return fmt.Sprintf(`{"usercast":"check","event":%d,"token":"%s"}`, n, x.token)
}

// events publishes and looks when each event arrives.
func (x *examination) events(ctx context.Context, s *stream) {
	if x.Publish == nil {
		if x.Unknown != "" {
			x.tell.Note("url-user", "--user <id>", "%s: no events are published to see when they arrive", x.Unknown)
		}
		return
	}
	var sent, came [staggered]time.Time
	heard := int64(-1)
	for n := range staggered {
		sent[n] = time.Now()
		var err error
		if heard, err = x.Publish(ctx, x.topic(), x.payload(n)); err != nil {
			if ctx.Err() == nil {
				x.tell.Fail("url-publish", "see what is said of Redis above", "events cannot be published: %v", err)
			}
			return
		}
		if n < staggered-1 {
			next := sent[n].Add(apart)
			x.collect(s, &came, next)
			pause(ctx, next)
		}
	}
	x.collect(s, &came, time.Now().Add(min(x.Timeout, patience)))
	if ctx.Err() == nil {
		x.judge(sent, came, heard)
	}
}

// pause waits until then, or until ctx ends.
func pause(ctx context.Context, until time.Time) {
	select {
	case <-time.After(time.Until(until)):
	case <-ctx.Done():
	}
}

// collect takes what comes until then, until all events are there, or until the stream
// ends: of that quiet tells.
func (x *examination) collect(s *stream, came *[staggered]time.Time, until time.Time) {
	for x.came < staggered {
		b, there, _ := s.wait(until)
		if !there {
			return
		}
		for n := range staggered {
			if b.data == x.payload(n) && came[n].IsZero() {
				came[n] = b.at
				x.came++
			}
		}
	}
}

// judge says what the times mean.
func (x *examination) judge(sent, came [staggered]time.Time, heard int64) {
	var late []time.Duration
	var words []string
	for n, at := range came {
		if !at.IsZero() {
			late = append(late, max(0, at.Sub(sent[n])))
			words = append(words, round(late[len(late)-1]).String())
		}
	}
	switch {
	case len(late) == 0 && heard == 0:
		x.tell.Fail("url-other-redis", "give check the --redis and --channel-prefix of the hub behind this URL", "no event arrived: nobody is subscribed at this Redis, so the hub behind the URL has another one, or another prefix")
		return
	case len(late) == 0:
		return // quiet finds out why
	case len(late) < staggered:
		x.tell.Fail("url-buffered", unbuffer, "held back: %d of %d events arrived within %v", len(late), staggered, patience)
		return
	}
	worst, spread := slices.Max(late), came[staggered-1].Sub(came[0])
	shown := strings.Join(words, ", ")
	switch {
	case spread < (staggered-1)*apart/2 && worst > apart/2:
		x.tell.Fail("url-buffered", unbuffer, "held back: %d events that were published %v apart arrived together, %s late", staggered, apart, shown)
	case worst > prompt:
		x.tell.Warn("url-late", "is the way long, or the proxy or the hub overloaded?", "%d events that were published %v apart arrived %s late", staggered, apart, shown)
	default:
		x.tell.OK("url-events", "%d events, published %v apart, arrived after %s", staggered, apart, shown)
	}
}

// Shown is a URL without what may be secret in it.
func Shown(u *url.URL) string {
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}
