package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/internal/load"
	"usercast/transport/redis"
)

// benchTopic is the topic of what bench publishes.
const benchTopic = "bench"

type benchCmd struct {
	app.RedisConfig

	URL      []string `sep:"none" default:"http://127.0.0.1:8080/events" placeholder:"URL" help:"Stream, http:// or https://; {user} in it is the user, 0 and up. If neither a URL nor a header has {user}, ?user={user} is added, as --auth insecure wants it. Repeatable: streams take them in turn (${default})."`
	Header   []string `sep:"none" placeholder:"'NAME: VALUE'" help:"Sent with each request, e.g. 'Cookie: session={user}'; repeatable."`
	From     []string `placeholder:"ADDRESS" help:"Local address to connect from, e.g. 127.0.0.2: one has some 28,000 ports; repeatable, taken in turn."`
	HTTP2    bool     `name:"http2" env:"USERCAST_HTTP2" help:"Many streams per connection: HTTP/2, with prior knowledge for http:// and negotiated (ALPN) for https://."`
	Insecure bool     `help:"Accept any certificate. To trust a private authority instead, set SSL_CERT_FILE in the environment to its PEM file."`
	Admin    []string `sep:"none" default:"http://127.0.0.1:8081" placeholder:"URL" help:"The hub's admin listener, for its CPU and memory; repeatable: hubs are added up (${default})."`

	Streams flags.Count  `default:"1000" placeholder:"N" help:"Streams to open (${default})."`
	Users   flags.Count  `default:"0" placeholder:"N" help:"Users they are spread over: stream i is user i mod N's; 0: one stream each (${default})."`
	Ramp    flags.Number `default:"1000" placeholder:"N" help:"Streams opened a second, at most (${default})."`

	Idle        flags.Duration   `default:"0" placeholder:"DURATION" help:"Measure the open streams for so long with nothing published; 0: do not (${default})."`
	Rate        flags.AutoNumber `default:"auto" placeholder:"N" help:"Open loop: messages a second. auto: 5,000 deliveries a second, none with --outstanding; 0: no open loop (${default})."`
	Outstanding flags.Count      `default:"0" placeholder:"N" help:"Closed loop: as fast as it goes with N messages on their way; 0: no closed loop (${default})."`
	Duration    flags.Duration   `default:"10s" placeholder:"DURATION" help:"How long each of the loops publishes (${default})."`
	Messages    flags.Count      `default:"0" placeholder:"N" help:"How many messages each of them publishes at most; 0: no limit (${default})."`
	Size        flags.Size       `default:"200" placeholder:"SIZE" help:"Length of a payload, 128 bytes or more (${default})."`
	Broadcast   bool             `help:"Publish to the user *: each message goes to every stream."`
	Patience    flags.Duration   `default:"5s" placeholder:"DURATION" help:"How long to wait for what does not come (${default})."`

	Feed          string `default:"pubsub" placeholder:"FEED" help:"What the hub reads: pubsub (PUBLISH) or stream (XADD) (${default})."`
	StreamKey     string `default:"${stream_key_default}" placeholder:"KEY" help:"Key of the stream (${default})."`
	ChannelPrefix string `default:"${prefix_default}" placeholder:"PREFIX" help:"Channels are <prefix><user>:bench (${default})."`

	JSON    bool `name:"json" help:"Print one JSON object instead of a report."`
	YesIOwn bool `name:"yes-i-own-it" help:"Load targets that are not this machine."`
}

// Run exits 0 when all streams opened and every message arrived once and in order,
// or was announced as lost.
func (c *benchCmd) Run(ctx context.Context, stdout io.Writer) error {
	cfg, server, err := c.config(ctx)
	if err != nil {
		return err
	}
	cfg.Dial = func(ctx context.Context) (load.Publisher, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		return c.dial(ctx, server)
	}
	finish := func() {}
	if stderr := os.Stderr; term.IsTerminal(int(stderr.Fd())) {
		cfg.Progress, finish = newBar(stderr)
	}
	report, err := load.Run(ctx, cfg)
	finish()
	if err != nil {
		return err
	}
	if c.JSON {
		encoder := json.NewEncoder(stdout)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(report)
	} else {
		err = printReport(stdout, report)
	}
	var faults []error
	for _, f := range report.Faults {
		faults = append(faults, errors.New(f))
	}
	return errors.Join(append(faults, err)...)
}

// dial connects to Redis as the app would.
func (c *benchCmd) dial(ctx context.Context, server *redis.Server) (load.Publisher, error) {
	warnUnused(app.UnusedStreamKey(c.Feed, c.StreamKey))
	key := ""
	if c.Feed == app.FeedStream {
		key = c.StreamKey
	}
	p, err := redis.NewPipeline(ctx, server, key)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", server.Name(), err)
	}
	return benchPublisher{p, c, make(map[string]string)}, nil
}

// A benchPublisher knows channels and feed.
type benchPublisher struct {
	*redis.Pipeline
	cmd      *benchCmd
	channels map[string]string // by user
}

func (p benchPublisher) Publish(user string, payload []byte) error {
	channel, ok := p.channels[user]
	if !ok {
		channel = p.cmd.ChannelPrefix + user + ":" + benchTopic
		p.channels[user] = channel
	}
	if p.cmd.Feed == app.FeedStream {
		return p.Pipeline.Append(p.cmd.StreamKey, channel, payload)
	}
	return p.Pipeline.Publish(channel, payload)
}
