package app

import (
	"context"
	"errors"

	"usercast/hub"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

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
