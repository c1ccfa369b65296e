package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/finding"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

const (
	// maxObservedChannels limits the memory for names of channels. Messages to more channels are only counted.
	maxObservedChannels = 10_000
	// maxObservedName is the number of bytes that are kept of a name. Redis allows names of up to 512 MB.
	maxObservedName = 256
	// maxShownFields limits the fields that are shown of an entry.
	maxShownFields = 5
)

// An Observation is what apps published during a time. It holds names of channels, and never payloads.
type Observation struct {
	in       *inspector
	lasted   time.Duration
	err      error // why it ended early
	denied   error // the reply to PSUBSCRIBE *
	own      bool  // only channels with the prefixes of the hub are observed, because of denied
	started  bool  // Redis has confirmed the subscription
	channels tally
	received atomic.Int64 // messages and entries, while it runs
	entries  tally        // with the stream feed: fields ch of the entries that were appended to the stream
	// Entries that the hub ignores, and the names of the fields of the first one.
	ignored       int64
	ignoredFields []string
}

// A tally counts messages by channel.
type tally struct {
	count map[string]int64
	total int64
	more  int64 // messages to channels that are not in count, because it is full
}

func (t *tally) add(channel string) {
	channel = channel[:min(len(channel), maxObservedName)]
	t.total++
	if _, known := t.count[channel]; !known && len(t.count) == maxObservedChannels {
		t.more++
		return
	}
	if t.count == nil {
		t.count = make(map[string]int64)
	}
	t.count[channel]++
}

// Observe receives everything that is published on the server, to any channel, for a time or until ctx ends. With a
// StreamKey, it also reads the entries that are appended to that stream. It does not need a running hub, and
// publishes nothing. While it runs, Redis sends it a copy of all messages.
func (i Inspection) Observe(ctx context.Context, d time.Duration) *Observation {
	h := newObservation(i)
	h.run(ctx, d)
	return h
}

func newObservation(i Inspection) *Observation {
	return &Observation{in: &inspector{Inspection: i, server: (*topology.Server)(i.Server)}}
}

func (h *Observation) run(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	start := time.Now()
	entries := make(chan error, 1)
	go func() { entries <- h.observeEntries(ctx) }()
	err := h.observeChannels(ctx, []string{"*"})
	if h.denied != nil && err == nil && ctx.Err() == nil {
		all := h.denied
		h.denied = nil
		err = h.observeChannels(ctx, h.in.Channels.Patterns())
		h.own, h.denied = h.denied == nil, all
	}
	if entriesErr := <-entries; err == nil {
		err = entriesErr
	}
	h.err, h.lasted = err, time.Since(start)
}

// observeChannels counts messages to the channels of patterns until ctx ends, including those that were published before
// its end and have not been received yet: the reply to a PING comes behind them. It returns nil then.
func (h *Observation) observeChannels(ctx context.Context, patterns []string) error {
	connCtx, closeConn := context.WithCancel(context.WithoutCancel(ctx))
	defer closeConn()
	conn := h.in.server.NewConn(connCtx, topology.Target{}, func(ctx context.Context, cn *goredis.Conn) error {
		return acl.Optional(cn.ClientSetName(ctx, topology.ClientName).Err(), acl.PermissionName, func(acl.Permission, error) {})
	})
	defer conn.Close()
	defer context.AfterFunc(ctx, func() {
		time.AfterFunc(h.in.server.AnswerTimeout(), closeConn)
		_ = conn.Ping() // after an error, Receive returns one too
	})()
	err := conn.PSubscribe(patterns...)
	var received any
	for err == nil {
		if received, err = conn.Receive(); err != nil {
			break
		}
		switch m := received.(type) {
		case *goredis.Subscription:
			h.started = true
		case *goredis.Message:
			if _, _, ok := h.in.cutPrefix(m.Channel); ok || !isInternal(m.Channel) {
				h.channels.add(m.Channel)
			}
			h.received.Add(1)
		case *goredis.Pong:
			err = ctx.Err()
		}
	}
	switch {
	case ctx.Err() != nil && (h.started || ctx.Err() == context.Canceled):
		return nil
	case ctx.Err() != nil:
		return topology.FaultUnresponsive
	case acl.IsReply(err) && !goredis.IsAuthError(err):
		h.denied = err
		return nil
	}
	return err
}

// observeEntries counts entries of the stream until ctx ends. It returns nil then.
func (h *Observation) observeEntries(ctx context.Context) error {
	key := h.in.StreamKey
	if key == "" {
		return nil
	}
	err := h.in.ask(ctx, topology.Target{Key: key}, func(_ context.Context, cn *goredis.Conn) error {
		last := "$"
		newest, err := cn.XRevRangeN(ctx, key, "+", "-", 1).Result()
		if err == nil && len(newest) > 0 {
			last = newest[0].ID
		}
		for err == nil && ctx.Err() == nil {
			var streams []goredis.XStream
			streams, err = cn.XRead(ctx, &goredis.XReadArgs{Streams: []string{key, last}, Count: 16, Block: 200 * time.Millisecond}).Result()
			if errors.Is(err, goredis.Nil) { // nothing within the time
				err = nil
			}
			for _, s := range streams {
				for _, entry := range s.Messages {
					last = entry.ID
					h.addEntry(entry.Values)
					h.received.Add(1)
				}
			}
		}
		return err
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// addEntry counts an entry as a hub would read it.
func (h *Observation) addEntry(fields map[string]any) {
	channel, hasChannel := fields["ch"].(string)
	_, hasData := fields["data"]
	_, isCommand := fields["ctl"]
	switch {
	case isCommand:
	case hasChannel && hasData:
		h.entries.add(channel)
	default:
		if h.ignored++; h.ignored > 1 {
			return
		}
		for _, name := range slices.Sorted(maps.Keys(fields))[:min(len(fields), maxShownFields)] {
			h.ignoredFields = append(h.ignoredFields, finding.Name(name[:min(len(name), maxObservedName)]))
		}
	}
}

// Report reports what was received, as a hub with this prefix and separator would read it, and which prefix fits.
func (h *Observation) Report(report func(Finding)) {
	i := h.in
	i.report = report
	if h.err != nil {
		i.broken(h.err)
		if h.received.Load() == 0 {
			return
		}
	}
	if h.denied != nil {
		user := i.server.UserName()
		do := "use a Redis user with access to all channels, or check the Redis server's log"
		if goredis.IsPermissionError(h.denied) {
			do = fmt.Sprintf("ACL SETUSER %s %s\nafterwards, revoke it: ACL SETUSER %[1]s resetchannels, followed by the channels that it had before",
				user, missingPart("+psubscribe &*", h.denied))
		}
		consequence := "no channel could be observed"
		if h.own {
			consequence = "only channels that begin with " + i.prefixes() + " were observed"
		}
		i.report.Warn("published-denied", do, "user %s is not allowed to run PSUBSCRIBE *, so %s (%s)", user, consequence, topology.Shown(i.server.Redact(h.denied)))
	}
	if i.StreamKey == "" {
		if h.denied == nil || h.own {
			h.reportTally(&h.channels, "messages", "channels")
		}
		return
	}
	if h.ignored > 0 {
		i.report.Warn("published-fields", "append entries with XADD "+finding.ShellQuoted(i.StreamKey)+" … ch <channel> data <payload>",
			"the hub ignores %s, because the fields ch and data are not both present: the first one has %s", count(h.ignored, "entries"), strings.Join(h.ignoredFields, ", "))
		if h.entries.total == 0 {
			return
		}
	}
	h.reportTally(&h.entries, "entries", "values of the field ch in "+i.StreamKey)
	for channel := range h.channels.count {
		if _, _, ok := i.Channels.Split(channel); ok {
			i.report.Warn("published-feed", "append to the stream with XADD, or use --feed pubsub", "messages are published to channels such as %s, but --feed stream reads only the stream %s", finding.Name(channel), i.StreamKey)
			break
		}
	}
}
