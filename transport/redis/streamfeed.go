package redis

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// A StreamHub receives the entries of a StreamFeed; *hub.StreamFeed implements it. Its methods are
// called from the goroutine that reads Redis, and must not block.
type StreamHub interface {
	// BroadcastUser returns the user whose entries are for all streams; "" if broadcasts are disabled.
	BroadcastUser() string
	// Load is called once, before Append, with the newest entries, oldest first: all that are
	// later than after and up to newest, each with its recipient; the zero value means that the entry has only an id.
	Load(after, newest hub.ID, entries iter.Seq2[hub.Recipient, hub.Entry])
	// Append is called with each later entry, in order, and returns the number of streams that
	// receive it. With the zero Recipient, the entry has only an id. A payload over MaxPayload is omitted, and
	// Gap is hub.GapTooLarge.
	Append(to hub.Recipient, e hub.Entry) int
	// Lose announces that entries up to an id were trimmed before they were read.
	Lose(upTo hub.ID)
	// Reset announces that the Redis stream went backwards: its key was replaced, or a primary
	// without its newest entries was promoted. It continues after newest.
	Reset(newest hub.ID)
	// Disconnect ends the streams of a user.
	Disconnect(user string) int
}

// StreamConfig configures a StreamFeed. A zero value means the default.
type StreamConfig struct {
	Server *Server   // required
	Hub    StreamHub // required

	// Streams is corked during each batch of entries. Default: none.
	Streams Corker

	Key        string   // of the Redis stream; default "usercast:log"
	Channels   Channels // as in PubSubConfig
	MaxPayload int      // as in PubSubConfig

	// WindowBytes limits the entries that Hub.Load receives: names, payload and 192 bytes per entry.
	// Default 64 MiB; hub.Off loads nothing.
	WindowBytes int64

	Control func(Control) // as in PubSubConfig
	Logger  *slog.Logger  // as in PubSubConfig

	Block                  time.Duration // how long one XREAD waits; default 2 s
	ProbeEvery             time.Duration // time between probes over a new connection; default 30 s
	BackoffMin, BackoffMax time.Duration // as in PubSubConfig
}

// StreamFeed reads one Redis stream, entry after entry, over one connection at a time. After a
// reconnect, it continues with the next entry if the primary still has it. Call Run once; Query and
// Stats may be called at any time.
type StreamFeed struct {
	session // owner of the connections

	cfg StreamConfig // immutable after NewStreamFeed

	position // owned by Run: up to where the Redis stream was read

	queries queries
}

// NewStreamFeed validates cfg. It does not connect: Run does.
func NewStreamFeed(cfg StreamConfig) (*StreamFeed, error) {
	cfg.Key = cmp.Or(cfg.Key, "usercast:log")
	cfg.Channels = cfg.Channels.withDefaults()
	cfg.MaxPayload = cmp.Or(cfg.MaxPayload, defaultMaxPayload)
	cfg.WindowBytes = cmp.Or(cfg.WindowBytes, 64<<20)
	cfg.Block = cmp.Or(cfg.Block, 2*time.Second)
	cfg.ProbeEvery = cmp.Or(cfg.ProbeEvery, defaultProbeEvery)
	cfg.BackoffMin = cmp.Or(cfg.BackoffMin, defaultBackoffMin)
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, defaultBackoffMax)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Streams == nil {
		cfg.Streams = nothingToCork{}
	}
	if cfg.Control == nil {
		cfg.Control = func(c Control) { cfg.Hub.Disconnect(c.User) }
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	f := &StreamFeed{
		session: newSession(cfg.Server, cfg.Key, cfg.Logger, cfg.ProbeEvery, cfg.BackoffMin, cfg.BackoffMax),
		cfg:     cfg,
		queries: queries{added: make(chan struct{}, 1)},
	}
	f.fault = f.describe
	return f, nil
}

func (c *StreamConfig) validate() error {
	errs := []error{c.Channels.Validate(ControlChannel(c.Channels.Users))}
	if c.Server == nil {
		errs = append(errs, errors.New("StreamConfig.Server is required"))
	}
	if c.Hub == nil {
		errs = append(errs, errors.New("StreamConfig.Hub is required"))
	}
	if c.MaxPayload < 0 {
		errs = append(errs, fmt.Errorf("StreamConfig.MaxPayload must not be negative: %d", c.MaxPayload))
	}
	if min(c.Block, c.ProbeEvery, c.BackoffMin, c.BackoffMax) < 0 {
		errs = append(errs, errors.New("durations in StreamConfig must not be negative"))
	}
	return errors.Join(errs...)
}

// ValidateKey returns why a key cannot be used for a stream, or nil.
func ValidateKey(key string) error {
	if key == "" {
		return errors.New("the stream key must not be empty")
	}
	return nil
}

// Run reads the Redis stream until ctx ends. Then it returns nil, after its goroutines have ended and
// its connections are closed. An unavailable Redis is not an error; calling Run again is.
func (f *StreamFeed) Run(ctx context.Context) error {
	if err := f.start(); err != nil {
		return err
	}
	f.began = time.Now()
	var querying sync.WaitGroup
	defer querying.Wait()
	querying.Go(func() { f.answerQueries(ctx) })
	f.run(ctx, func(context.CancelCauseFunc) connection { return &reader{StreamFeed: f} })
	return nil
}

// describe is Server.fault for a feed that reads a Redis stream.
func (f *StreamFeed) describe(err error, live bool) *topology.Fault {
	switch {
	case errors.Is(err, errEntryID):
		return &topology.Fault{Reason: "entry", Problem: "Redis returned an invalid entry id", Advice: "check that the server is Redis", Err: err}
	case goredis.HasErrorPrefix(err, "WRONGTYPE"):
		return &topology.Fault{Reason: "type", Problem: f.cfg.Key + " is not a stream", Advice: "rename that key, or use another --stream-key", Err: err}
	case acl.IsReply(err):
		return f.server.Denied(err, "read "+f.cfg.Key, fmt.Sprintf("+xread +xrange +xrevrange +xinfo|stream +xlen ~%s", acl.Escape(f.cfg.Key)))
	}
	return f.server.Fault(err, live)
}

// Stats returns a snapshot. Entries that Load or queries read are not counted.
func (f *StreamFeed) Stats() Stats {
	s := f.count.stats()
	s.Feed, s.Redis, s.Marked = "stream", f.server.Name(), true
	return s
}
