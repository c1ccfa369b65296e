package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"usercast/hub"
	"usercast/internal/flags"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// The feeds that --feed names.
const (
	FeedPubSub = "pubsub"
	FeedStream = "stream"
)

const DefaultStreamKey = "usercast:log"

// Defaults of --history-per-user and --history-age.
const (
	defaultHistoryPerUser = 256
	defaultHistoryAge     = 2 * time.Minute
)

// Unused is a flag that was set and has no effect with the feed.
type Unused struct{ Flag, Hint string }

// UnusedStreamKey is the flag --stream-key without --feed stream. It is easily set alone, and then
// nothing that the app appends arrives.
func UnusedStreamKey(feed, key string) []Unused {
	if feed == FeedStream || key == DefaultStreamKey {
		return nil
	}
	return []Unused{{"--stream-key", "set --feed stream to read that stream, or remove the flag"}}
}

// UnusedByFeed are the flags that were set to something else than their default and that only the
// other feed reads. They are no errors: a deployment may set them for hubs with either feed.
func (c *Config) UnusedByFeed() []Unused {
	list := UnusedStreamKey(c.Feed, c.StreamKey)
	if c.Feed != FeedStream {
		return list
	}
	if c.ControlChannel != "" {
		list = append(list, Unused{"--control-channel", "append control commands to the stream, as entries with the field ctl, or remove the flag"})
	}
	const window = "with --feed stream only --history-bytes limits what is kept; remove the flag"
	if c.HistoryPerUser.T != defaultHistoryPerUser {
		list = append(list, Unused{"--history-per-user", window})
	}
	if c.HistoryAge.T != defaultHistoryAge {
		list = append(list, Unused{"--history-age", window})
	}
	return list
}

// WarnUnused writes a line per flag, for a command that runs once.
func WarnUnused(w io.Writer, list []Unused) {
	for _, u := range list {
		fmt.Fprintf(w, "usercast: warning: %s has no effect with this --feed; %s\n", u.Flag, u.Hint)
	}
}

// CheckFeed adds what is wrong with --feed, --stream-key and --channel-prefix.
func CheckFeed(errs *flags.Errors, feed, key, prefix string) {
	if feed != FeedPubSub && feed != FeedStream {
		errs.Add("feed", "%q is neither pubsub nor stream", feed)
	}
	errs.Check("stream-key", redis.ValidateKey(key))
	errs.Check("channel-prefix", redis.ValidatePrefix(prefix))
}

// A feed brings messages from one Redis.
type feed interface {
	Run(ctx context.Context) error
	Stats() redis.Stats
}

// newFeed joins a Redis and the hub.
func (a *App) newFeed(server *redis.Server) (feed, error) {
	if a.cfg.Feed == FeedStream {
		return a.newLog(server)
	}
	b := &batch{streams: a.streams}
	return redis.NewPubSub(redis.Config{
		Server:         server,
		ChannelPrefix:  a.cfg.ChannelPrefix,
		ControlChannel: a.cfg.ControlChannelName(),
		MaxPayload:     a.cfg.MaxPayload.T,
		Publish: func(user, topic, payload string) int {
			b.begin()
			return a.pubSub.Publish(user, topic, payload)
		},
		Waiting:  b.end,
		TooLarge: func(user, topic string) { a.pubSub.GapFor(user, topic, hub.GapTooLarge) },
		Control:  a.handleControl,
		// The first subscription too: a stream that was opened before it may
		// have missed what was published before it.
		Subscribed: func(uint64) { a.pubSub.GapForAll(hub.GapRedisReconnect) },
		Log:        a.log,
	})
}

// newLog is newFeed for a stream: entries keep its ids, so that a browser may come
// back to any hub.
func (a *App) newLog(server *redis.Server) (feed, error) {
	b := &batch{streams: a.streams}
	log, err := redis.NewLog(redis.LogConfig{
		Server:        server,
		Key:           a.cfg.StreamKey,
		ChannelPrefix: a.cfg.ChannelPrefix,
		BroadcastUser: a.cfg.BroadcastUser,
		MaxPayload:    a.cfg.MaxPayload.T,
		WindowBytes:   int64(a.cfg.HistoryBytes.T),
		Load: func(window []redis.Entry, floor, newest redis.EntryID) {
			a.streamFeed.Load(hubID(floor), hubID(newest), func(yield func(string, hub.Entry) bool) {
				for _, e := range window {
					if !yield(e.User, hubEntry(e)) {
						return
					}
				}
			})
		},
		Append: func(e redis.Entry) int {
			b.begin()
			return a.streamFeed.Append(e.User, hubEntry(e))
		},
		Waiting:  b.end,
		TooLarge: func(e redis.Entry) { a.streamFeed.Append(e.User, hubEntry(e)) },
		Skip:     func(id redis.EntryID) { a.streamFeed.Append("", hub.Entry{ID: hubID(id)}) },
		Lost:     func(upTo redis.EntryID) { a.streamFeed.Lose(hubID(upTo)) },
		Reset:    func(newest redis.EntryID) { a.streamFeed.Reset(hubID(newest)) },
		Control:  a.handleControl,
		Log:      a.log,
	})
	a.stream = log
	return log, err
}

// A batch is what a feed hands over before it waits for more: the streams' writes are
// put off for as long. It belongs to the goroutine that reads the feed.
type batch struct {
	streams *sse.Handler
	begun   bool
}

func (b *batch) begin() {
	if !b.begun {
		b.begun = true
		b.streams.Cork()
	}
}

func (b *batch) end() {
	if b.begun {
		b.begun = false
		b.streams.Uncork()
	}
}

// askLog asks the stream for what the hub no longer holds.
func (a *App) askLog(q *hub.Query) {
	a.stream.Ask(redis.Query{
		User:  q.User,
		After: redis.EntryID{Ms: q.After.Ms, Seq: q.After.Seq},
		UpTo:  redis.EntryID{Ms: q.UpTo.Ms, Seq: q.UpTo.Seq},
		Answer: func(list []redis.Entry, covered redis.EntryID, err error) {
			var gap hub.Gap
			switch {
			case errors.Is(err, redis.ErrUnknownID):
				gap = hub.GapUnknownID
			case err != nil:
				gap = hub.GapHistoryExpired
			}
			entries := make([]hub.Entry, len(list))
			for i, e := range list {
				entries[i] = hubEntry(e)
			}
			q.Answer(entries, hubID(covered), gap)
		},
		Gone: q.Gone,
	})
}

func hubID(id redis.EntryID) hub.ID { return hub.ID{Ms: id.Ms, Seq: id.Seq} }

func hubEntry(e redis.Entry) hub.Entry {
	h := hub.Entry{ID: hubID(e.ID), Topic: e.Topic, Payload: e.Payload}
	if e.TooLarge {
		h.Gap = hub.GapTooLarge
	}
	return h
}
