package redis

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"usercast/hub"
	"usercast/internal/histogram"
	"usercast/transport/redis/internal/acl"
)

// A PubSubHub is what a PubSub hands messages to; *hub.PubSub is one. Its methods are called from
// the goroutine that reads Redis. One that waits stops the reading, and Redis closes the
// connection of a subscriber that does not read.
type PubSubHub interface {
	// Publish routes a message and returns how many streams it went to. User is "*" for a
	// broadcast; topic is "" for none. The strings need not be UTF-8 and may be kept.
	Publish(user, topic, payload string) int
	// GapFor announces that a message for the user was not routed.
	GapFor(user, topic string, reason hub.Gap)
	// GapForAll announces that messages may have been missed. It is called for each new
	// subscription, the first one included, before its first message.
	GapForAll(reason hub.Gap)
	// Disconnect ends the streams of a user.
	Disconnect(user string) int
}

// A Corker postpones writes to streams while a feed hands over several messages at once;
// *sse.Handler is one. Cork and Uncork are called in turns, from the goroutine that reads Redis,
// and never while it waits for Redis.
type Corker interface {
	Cork()
	Uncork()
}

// PubSubConfig is what a PubSub needs. A zero value means the default.
type PubSubConfig struct {
	Server *Server   // required
	Hub    PubSubHub // required

	// Streams are corked during each batch of messages. Default: nothing is.
	Streams Corker

	// ChannelPrefix is what the names of the users' channels begin with, as ValidatePrefix
	// allows. Default "user-".
	ChannelPrefix string

	// MaxPayload is the maximum size of a payload in bytes. Default 1 MiB. There is no way to
	// have no limit.
	MaxPayload int

	// Control gets each valid control command, on the goroutine that reads Redis. Default:
	// Hub.Disconnect is called for the user.
	Control func(Control)

	// ControlChannel is the channel of control commands, as ValidateControlChannel allows.
	// Default: ControlChannel(ChannelPrefix).
	ControlChannel string

	// Logger gets one line for each change of state. Default: none.
	Logger *slog.Logger

	// PingAfter is the idle time after which the connection must answer a PING within the
	// server's AnswerTimeout. Default 3 s: with it, a dead connection is noticed in about 6 s.
	PingAfter time.Duration

	// ProbeEvery is the time between probes over a new connection, ±10 %. A probe that
	// has not come back after two of them ends the generation. Default 30 s.
	ProbeEvery time.Duration

	// ProbeTimeout is how long a published probe may take to come back before a PING is sent
	// after it. It waits its turn behind all messages before it: that alone does not end a
	// generation. Default 5 s.
	ProbeTimeout time.Duration

	// BackoffMin and BackoffMax bound the pause before a new attempt, which
	// doubles from one to the other; up to a half is subtracted at random.
	// Defaults 100 ms and 1 s: reconnected within 2 s of Redis.
	BackoffMin, BackoffMax time.Duration
}

// PubSub is the pub/sub feed: it keeps one subscription to all users' channels.
// Run it once; Stats may be called at any time.
type PubSub struct {
	session // owner of the connections

	// Immutable after NewPubSub.
	cfg          PubSubConfig
	pattern      string
	probeChannel string

	// Owned by Run.
	lastAddr string // the address of the latest subscription

	probes histogram.Histogram
}

const (
	defaultPrefix     = "user-"
	defaultMaxPayload = 1 << 20
	defaultProbeEvery = 30 * time.Second
	defaultBackoffMin = 100 * time.Millisecond
	defaultBackoffMax = time.Second
)

// NewPubSub checks cfg and reports everything wrong with it at once. It does not
// connect: Run does.
func NewPubSub(cfg PubSubConfig) (*PubSub, error) {
	cfg.ChannelPrefix = cmp.Or(cfg.ChannelPrefix, defaultPrefix)
	cfg.ControlChannel = cmp.Or(cfg.ControlChannel, ControlChannel(cfg.ChannelPrefix))
	cfg.MaxPayload = cmp.Or(cfg.MaxPayload, defaultMaxPayload)
	cfg.PingAfter = cmp.Or(cfg.PingAfter, 3*time.Second)
	cfg.ProbeEvery = cmp.Or(cfg.ProbeEvery, defaultProbeEvery)
	cfg.ProbeTimeout = cmp.Or(cfg.ProbeTimeout, 5*time.Second)
	cfg.BackoffMin = cmp.Or(cfg.BackoffMin, defaultBackoffMin)
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, defaultBackoffMax)
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
	return &PubSub{
		session:      newSession(cfg.Server, "", cfg.Logger, cfg.ProbeEvery, cfg.BackoffMin, cfg.BackoffMax),
		cfg:          cfg,
		pattern:      acl.Pattern(cfg.ChannelPrefix),
		probeChannel: acl.ProbeChannel(cfg.ChannelPrefix, rand.Text()),
	}, nil
}

// nothingToCork is the default Corker.
type nothingToCork struct{}

func (nothingToCork) Cork()   {}
func (nothingToCork) Uncork() {}

func (c *PubSubConfig) validate() error {
	errs := []error{cmp.Or(ValidatePrefix(c.ChannelPrefix), ValidateControlChannel(c.ChannelPrefix, c.ControlChannel))}
	if c.Server == nil {
		errs = append(errs, errors.New("no Server in the config"))
	}
	if c.Hub == nil {
		errs = append(errs, errors.New("no Hub in the config"))
	}
	if c.MaxPayload < 0 {
		errs = append(errs, fmt.Errorf("a MaxPayload of %d bytes is not possible", c.MaxPayload))
	}
	if min(c.PingAfter, c.ProbeEvery, c.ProbeTimeout, c.BackoffMin, c.BackoffMax) < 0 {
		errs = append(errs, errors.New("a duration is negative"))
	}
	return errors.Join(errs...)
}

// Run keeps a subscription alive until ctx ends, and then returns nil: no
// goroutine and no connection of it is left. An unavailable Redis is not an error;
// calling Run a second time is.
func (p *PubSub) Run(ctx context.Context) error {
	if err := p.start(); err != nil {
		return err
	}
	p.run(ctx, func(end context.CancelCauseFunc) connection { return newSubscription(p, end) })
	return nil
}

// Stats takes a snapshot. Its counters are read one after the other: they add up
// only while nothing moves.
func (p *PubSub) Stats() Stats {
	s := p.count.stats()
	s.Feed, s.Redis, s.Probe = "pubsub", p.server.Name(), p.probes.Snapshot()
	return s
}
