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

	"usercast/internal/histogram"
)

// Config is what a PubSub needs. The funcs are called from one goroutine, the one
// that reads Redis; one that waits stops the reading, and Redis cuts a
// subscriber that does not read.
type Config struct {
	Server        *Server
	ChannelPrefix string // as ValidatePrefix allows, e.g. "user-"

	// MaxPayload is the most bytes that a payload may have. Default 1 MiB.
	MaxPayload int

	// Publish routes a message and says how many streams took it live. User is
	// "*" for a broadcast; topic is "" for none. The strings need not be UTF-8
	// and may be kept. Required.
	Publish func(user, topic, payload string) int

	// TooLarge hears of each message over MaxPayload: it is not routed.
	TooLarge func(user, topic string)

	// Subscribed hears of each new generation before its first message. The first
	// is 1; before any other, messages may have been missed.
	Subscribed func(generation uint64)

	// Waiting hears that all that has come was handed over, before the feed waits for
	// more: what was put off for a batch is to be done now. Default: nothing is.
	Waiting func()

	// Control hears of each order that can be carried out. Default: none, and then
	// the control channel is not subscribed to.
	Control func(Control)

	// ControlChannel is where orders come in, as ValidateControlChannel allows.
	// Default: ControlChannel(ChannelPrefix).
	ControlChannel string

	// Log takes one line for each change of state. Default: none.
	Log *slog.Logger

	// PingAfter is the silence after which the connection must prove that it
	// lives, by answering a PING within the server's AnswerTimeout. Default 3 s:
	// with it, a dead link is noticed in about 6 s.
	PingAfter time.Duration

	// ProbeEvery is the time between probes over a new connection, ±10 %. A probe that
	// has not come back after two of them ends the generation. Default 30 s.
	ProbeEvery time.Duration

	// ProbeTimeout is how long a published probe may take to come back before it is
	// asked for. It waits its turn behind all messages before it: that alone does
	// not end a generation. Default 5 s.
	ProbeTimeout time.Duration

	// BackoffMin and BackoffMax bound the pause before a new attempt, which
	// doubles from one to the other; up to a half is taken off at random.
	// Defaults 100 ms and 1 s: back within 2 s of Redis.
	BackoffMin, BackoffMax time.Duration
}

// PubSub is the pub/sub feed: it keeps one subscription to all users' channels.
// Run it once; Stats may be called at any time.
type PubSub struct {
	// Immutable after NewPubSub.
	cfg          Config
	pattern      string
	probeChannel string
	report       *reporter

	// Owned by Run.
	left string // the address that the latest generation was at

	// Owned by Run, and by the prober while there is one.
	servers servers

	started atomic.Bool
	count   counters
	probes  histogram.Histogram
}

// NewPubSub checks cfg and reports everything wrong with it at once. It does not
// connect: Run does.
func NewPubSub(cfg Config) (*PubSub, error) {
	cfg.MaxPayload = cmp.Or(cfg.MaxPayload, 1<<20)
	cfg.PingAfter = cmp.Or(cfg.PingAfter, 3*time.Second)
	cfg.ProbeEvery = cmp.Or(cfg.ProbeEvery, 30*time.Second)
	cfg.ProbeTimeout = cmp.Or(cfg.ProbeTimeout, 5*time.Second)
	cfg.BackoffMin = cmp.Or(cfg.BackoffMin, 100*time.Millisecond)
	cfg.BackoffMax = cmp.Or(cfg.BackoffMax, time.Second)
	if cfg.TooLarge == nil {
		cfg.TooLarge = func(string, string) {}
	}
	cfg.ControlChannel = cmp.Or(cfg.ControlChannel, ControlChannel(cfg.ChannelPrefix))
	if cfg.Waiting == nil {
		cfg.Waiting = func() {}
	}
	if cfg.Subscribed == nil {
		cfg.Subscribed = func(uint64) {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return &PubSub{
		cfg:          cfg,
		pattern:      pattern(cfg.ChannelPrefix),
		probeChannel: probeChannel(cfg.ChannelPrefix, rand.Text()),
		report:       newReporter(cfg.Log, cfg.Server),
	}, nil
}

func (c *Config) validate() error {
	errs := []error{cmp.Or(ValidatePrefix(c.ChannelPrefix), ValidateControlChannel(c.ChannelPrefix, c.ControlChannel))}
	if c.Server == nil {
		errs = append(errs, errors.New("no server to subscribe to"))
	}
	if c.Publish == nil {
		errs = append(errs, errors.New("nobody to publish to"))
	}
	if c.MaxPayload < 0 {
		errs = append(errs, fmt.Errorf("the largest payload cannot be %d bytes", c.MaxPayload))
	}
	if min(c.PingAfter, c.ProbeEvery, c.ProbeTimeout, c.BackoffMin, c.BackoffMax) < 0 {
		errs = append(errs, errors.New("a time is negative"))
	}
	return errors.Join(errs...)
}

// Run keeps a subscription alive until ctx ends, and then returns nil: no
// goroutine and no connection of it is left. Redis being away is not an error;
// calling Run a second time is.
func (p *PubSub) Run(ctx context.Context) error {
	if p.started.Swap(true) {
		return errors.New("a PubSub runs only once")
	}
	pauses := backoff{min: p.cfg.BackoffMin, max: p.cfg.BackoffMax}
	for {
		lived, err := p.generation(ctx)
		if ctx.Err() != nil {
			return nil
		}
		live := lived > 0
		p.report.down(p.cfg.Server.fault(err, live), live)
		// Only a subscription that lasted starts the pauses anew: a Redis that cuts
		// each one at once would otherwise be asked ten times a second.
		if lived > 5*p.cfg.BackoffMax {
			pauses.reset()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pauses.pause()):
		}
	}
}
