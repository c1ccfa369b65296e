package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"usercast/hub"
	"usercast/internal/histogram"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/fleet"
)

// A PubSubHub receives the messages of a PubSub feed; *hub.PubSub implements it. Its methods are called from
// the goroutine that reads Redis, except Waiting and Confirmed, and must not block: Redis disconnects a
// subscriber that does not read.
type PubSubHub interface {
	// Publish routes a message and returns the number of streams that receive it. The user "*"
	// means a broadcast, the topic "" no topic. The strings may be invalid UTF-8; Publish may keep them.
	Publish(to hub.Recipient, topic, payload string) int
	// GapFor announces that a message was not routed.
	GapFor(to hub.Recipient, topic string, reason hub.Gap)
	// Skip counts a message whose channel does not contain a recipient. Publish and GapFor count theirs.
	Skip()
	// Begin announces that messages may have been missed. It is called for each new subscription, the
	// first one included, before its first message.
	Begin()
	// Disconnect ends the streams of a user.
	Disconnect(user string) int

	// The other methods are for ids that are valid at several hubs. See hub.PubSub. Without markers, the
	// feed does not call them.
	Mark(hub.MarkerName)
	Miss(after hub.MarkerName)
	Settle()
	Doubt(after hub.MarkerName)
	AwaitPlaces(wake func())
	Waiting() (ticket uint64)
	Received(ticket uint64) (unknown bool)
	Confirmed(ticket uint64)
}

// A Corker delays writes to streams while a feed publishes a batch of messages, so that a stream
// with several of them is written to once; *sse.Handler implements it. The goroutine that reads
// Redis calls Cork before a batch, and Uncork after it and before it waits for Redis again.
type Corker interface {
	Cork()
	Uncork()
}

// PubSubConfig configures a PubSub. A zero value means the default.
type PubSubConfig struct {
	Server *Server   // required
	Hub    PubSubHub // required

	// Streams is corked during each batch of messages. Default: none.
	Streams Corker

	// Channels are the names of the channels that the feed subscribes to, as Channels.Validate allows.
	Channels Channels

	// MaxPayload is the maximum size of a payload in bytes. Default 1 MiB. It cannot be
	// unlimited.
	MaxPayload int

	// Control is called with each valid control command, on the goroutine that reads Redis. By
	// default, Hub.Disconnect is called for the user.
	Control func(Control)

	// ControlChannel is the channel of control commands, as Channels.ValidateControlChannel allows.
	// Default: ControlChannel(Channels.Users).
	ControlChannel string

	// Name and Version describe this hub to other hubs. Default: none.
	Name, Version string

	// Load returns the number of open streams and of their users, which other hubs show. Any goroutine
	// calls it. Default: 0, 0.
	Load func() (streams, users int)

	// NoMarkers is set if other PubSubs feed the same Hub. Then the feed publishes no markers and ignores
	// those of other hubs: ids are valid on this hub only.
	NoMarkers bool

	// Logger receives one line for each change of state. Default: none.
	Logger *slog.Logger

	// PingAfter is the idle time after which the connection must answer a PING within the
	// server's AnswerTimeout. Default 3 s: with it, a dead connection is detected in about 6 s.
	PingAfter time.Duration

	// ProbeEvery is the time between probes over a new connection, ±10 %. A probe that has not
	// arrived after twice this time ends the generation. Default 30 s.
	ProbeEvery time.Duration

	// ProbeTimeout is how long to wait for a published probe before a PING is sent after it. A
	// probe can be late because Redis sends all earlier messages first, so a late probe alone does
	// not end a generation. Default 5 s.
	ProbeTimeout time.Duration

	// BackoffMin and BackoffMax bound the pause before a new attempt. It doubles with each
	// attempt; up to half of it is subtracted at random. Defaults 100 ms and 1 s: the feed
	// reconnects within 2 s after Redis is available again.
	BackoffMin, BackoffMax time.Duration

	// Zero means the default. Tests change them.
	markEvery, echoWithin, lookUpEvery time.Duration
}

// PubSub is the pub/sub feed: it keeps one subscription to all channels of users and groups.
// Call Run once; Stats may be called at any time.
type PubSub struct {
	session // owner of the connections

	// Immutable after NewPubSub.
	cfg          PubSubConfig
	patterns     []string // sorted
	probeChannel string

	// Owned by Run.
	failed failedNode // in a cluster, the node that failed last

	probes histogram.Histogram

	member   *fleet.Member        // nil: NoMarkers
	born     time.Time            // immutable
	waiting  chan struct{}        // one slot, from the hub to locate: clients wait for their places
	writeNow chan chan<- struct{} // from WriteMarker to the goroutine that writes markers, which closes what it receives

	// Whether markers are written; see isMarked for how they affect readiness.
	marking      atomic.Bool  // a goroutine writes markers
	mute         atomic.Bool  // publishing the last marker was not allowed
	markless     atomic.Bool  // in the newest generation, markers do not count
	marked       atomic.Bool  // see isMarked
	subscribedAt atomic.Int64 // when the feed subscribed first, in ns after born
}

const (
	defaultPrefix     = "user-"
	defaultMaxPayload = 1 << 20
	defaultProbeEvery = 30 * time.Second
	defaultBackoffMin = 100 * time.Millisecond
	defaultBackoffMax = time.Second
)

// NewPubSub validates cfg and reports all errors at once. It does not connect: Run does.
func NewPubSub(cfg PubSubConfig) (*PubSub, error) {
	cfg.Channels = cfg.Channels.withDefaults()
	cfg.ControlChannel = cmp.Or(cfg.ControlChannel, ControlChannel(cfg.Channels.Users))
	cfg.MaxPayload = cmp.Or(cfg.MaxPayload, defaultMaxPayload)
	cfg.PingAfter = cmp.Or(cfg.PingAfter, 3*time.Second)
	cfg.ProbeEvery = cmp.Or(cfg.ProbeEvery, defaultProbeEvery)
	cfg.ProbeTimeout = cmp.Or(cfg.ProbeTimeout, 5*time.Second)
	cfg.BackoffMin = cmp.Or(cfg.BackoffMin, defaultBackoffMin)
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, defaultBackoffMax)
	cfg.markEvery = cmp.Or(cfg.markEvery, defaultMarkEvery)
	cfg.echoWithin = cmp.Or(cfg.echoWithin, defaultEchoWithin)
	cfg.lookUpEvery = cmp.Or(cfg.lookUpEvery, defaultLookUpEvery)
	if cfg.Streams == nil {
		cfg.Streams = nothingToCork{}
	}
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Control == nil {
		cfg.Control = func(c Control) { cfg.Hub.Disconnect(c.User) }
	}
	if cfg.Load == nil {
		cfg.Load = func() (streams, users int) { return 0, 0 }
	}
	p := &PubSub{
		session:      newSession(cfg.Server, "", cfg.Logger, cfg.ProbeEvery, cfg.BackoffMin, cfg.BackoffMax),
		cfg:          cfg,
		patterns:     cfg.Channels.Patterns(),
		probeChannel: acl.ProbeChannel(cfg.Channels.Users, rand.Text()),
		born:         time.Now(),
		waiting:      make(chan struct{}, 1),
		writeNow:     make(chan chan<- struct{}),
	}
	if !cfg.NoMarkers {
		p.member = fleet.NewMember(fleet.Config{Places: cfg.Hub, Name: cfg.Name, Version: cfg.Version, Load: cfg.Load})
		cfg.Hub.AwaitPlaces(func() { poke(p.waiting) })
	}
	return p, nil
}

// now returns the time since the feed was made.
func (p *PubSub) now() time.Duration { return time.Since(p.born) }

// nothingToCork is the default Corker.
type nothingToCork struct{}

func (nothingToCork) Cork()   {}
func (nothingToCork) Uncork() {}

func (c *PubSubConfig) validate() error {
	errs := []error{c.Channels.Validate(c.ControlChannel)}
	if c.Server == nil {
		errs = append(errs, errors.New("PubSubConfig.Server is required"))
	}
	if c.Hub == nil {
		errs = append(errs, errors.New("PubSubConfig.Hub is required"))
	}
	if c.MaxPayload < 0 {
		errs = append(errs, fmt.Errorf("PubSubConfig.MaxPayload must not be negative: %d", c.MaxPayload))
	}
	if min(c.PingAfter, c.ProbeEvery, c.ProbeTimeout, c.BackoffMin, c.BackoffMax) < 0 {
		errs = append(errs, errors.New("durations in PubSubConfig must not be negative"))
	}
	return errors.Join(errs...)
}

// Run keeps a subscription alive until ctx ends. Then it returns nil, after its goroutines have
// ended and its connections are closed. An unavailable Redis is not an error; calling Run again is.
func (p *PubSub) Run(ctx context.Context) error {
	if err := p.start(); err != nil {
		return err
	}
	p.run(ctx, func(end context.CancelCauseFunc) connection { return newSubscription(p, end) })
	return nil
}

// Stats returns a snapshot. Its counters are read one after the other, so they add up only while
// the feed is idle.
func (p *PubSub) Stats() Stats {
	s := p.count.stats()
	s.Feed, s.Redis, s.Probe = "pubsub", p.server.Name(), p.probes.Snapshot()
	s.Marked = p.isMarked()
	if p.member != nil {
		s.Hubs, s.Mismatches = p.member.Hubs(p.now()), p.member.Mismatches()
	}
	return s
}
