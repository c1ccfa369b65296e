package bench

import (
	"cmp"
	"context"
	"crypto/tls"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/internal/load"
	"usercast/transport/redis"
)

// Config is the command line of bench.
type Config struct {
	app.RedisConfig

	URL      []string `sep:"none" default:"http://127.0.0.1:8080/events" placeholder:"URL" help:"URL of the stream, http:// or https://; {user} is replaced by the user's number, starting at 0. If no URL and no header contains {user}, ?user={user} is added, as --auth insecure expects. Repeatable: streams use the URLs in turn (default: ${default})."`
	Header   []string `sep:"none" placeholder:"'NAME: VALUE'" help:"Request header, e.g. 'Cookie: session={user}'; repeatable."`
	From     []string `placeholder:"ADDRESS" help:"Local address to connect from, e.g. 127.0.0.2; each one provides about 28,000 ports. Repeatable: addresses are used in turn."`
	HTTP2    bool     `name:"http2" env:"USERCAST_HTTP2" help:"Use HTTP/2, with many streams per connection: by prior knowledge for http://, negotiated (ALPN) for https://."`
	Insecure bool     `help:"Do not verify TLS certificates. To trust a private CA instead, set SSL_CERT_FILE in the environment to its PEM file."`
	Admin    []string `sep:"none" default:"http://127.0.0.1:8081" placeholder:"URL" help:"URL of the hub's admin listener, to measure its CPU and memory. Repeatable: the values of all hubs are added up (default: ${default})."`

	Streams flags.Count  `default:"1000" placeholder:"N" help:"Number of streams to open (default: ${default})."`
	Users   flags.Count  `default:"0" placeholder:"N" help:"Number of users; stream i belongs to user i mod N. 0 means one user per stream (default: ${default})."`
	Ramp    flags.Number `default:"1000" placeholder:"N" help:"Maximum number of streams opened per second (default: ${default})."`

	Idle        flags.Duration   `default:"0" placeholder:"DURATION" help:"Duration of the idle phase, in which nothing is published; 0 skips it (default: ${default})."`
	Rate        flags.AutoNumber `default:"auto" placeholder:"N" help:"Open loop: messages per second. auto: 5,000 deliveries per second, or no open loop with --outstanding; 0 skips it (default: ${default})."`
	Outstanding flags.Count      `default:"0" placeholder:"N" help:"Closed loop: publish as fast as possible with N messages in flight; 0 skips it (default: ${default})."`
	Duration    flags.Duration   `default:"10s" placeholder:"DURATION" help:"Duration of each loop (default: ${default})."`
	Messages    flags.Count      `default:"0" placeholder:"N" help:"Maximum number of messages per loop; 0 means no limit (default: ${default})."`
	Size        flags.Size       `default:"200" placeholder:"SIZE" help:"Payload size, at least 128 bytes (default: ${default})."`
	Broadcast   bool             `help:"Publish to the broadcast user *, so that each message goes to every stream."`
	Patience    flags.Duration   `default:"5s" placeholder:"DURATION" help:"How long to wait for missing responses and messages (default: ${default})."`

	Feed           string     `default:"pubsub" placeholder:"FEED" help:"Feed that the hub uses: pubsub (PUBLISH) or stream (XADD) (default: ${default})."`
	StreamKey      string     `default:"${stream_key_default}" placeholder:"KEY" help:"With stream: key of the Redis stream (default: ${default})."`
	ChannelPrefix  string     `default:"${prefix_default}" placeholder:"PREFIX" help:"Prefix of channel names, which are <prefix><user>:bench (default: ${default})."`
	TopicSeparator flags.Char `default:"${separator_default}" placeholder:"CHAR" help:"Character between user and topic in channel names (default: ${default})."`

	JSON    bool `name:"json" help:"Print one JSON object instead of a report."`
	YesIOwn bool `name:"yes-i-own-it" help:"Allow targets on other hosts. Set it only for systems that you own."`
}

// load validates the flags. The error is a flags.UsageError.
func (c *Config) load(ctx context.Context) (cfg load.Config, server *redis.Server, err error) {
	var errs flags.Errors
	server = c.Server(&errs)
	if server != nil {
		c.checkRedisIsLocal(ctx, &errs, server)
	}
	for _, line := range c.Header {
		h, err := load.ParseHeader(line)
		if errs.Check("header", err) {
			cfg.Headers = append(cfg.Headers, h)
		}
	}
	c.targets(ctx, &errs, &cfg)
	for _, from := range c.From {
		addr, err := netip.ParseAddr(from)
		if err != nil {
			errs.Add("from", "invalid address %q; use an IP address such as 127.0.0.2", from)
			continue
		}
		cfg.From = append(cfg.From, addr)
	}
	for _, admin := range c.Admin {
		u, err := url.Parse(admin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
			errs.Add("admin", "invalid URL; use a URL such as http://127.0.0.1:8081") // not quoted, because it can contain a password
			continue
		}
		c.checkIsLocal(ctx, &errs, "admin", u.Hostname())
	}
	cfg.TLS = &tls.Config{InsecureSkipVerify: c.Insecure}
	cfg.Hub = func(ctx context.Context) (load.Samples, error) { return load.Scrape(ctx, c.Admin, cfg.TLS) }

	errs.AtLeast("streams", c.Streams, 1)
	errs.AtLeast("users", c.Users, 0)
	cfg.Streams, cfg.Users, cfg.HTTP2, cfg.Broadcast = c.Streams.T, cmp.Or(c.Users.T, c.Streams.T), c.HTTP2, c.Broadcast
	if cfg.Streams > 0 && cfg.Users > cfg.Streams {
		errs.Add("users", "%d users need at least as many streams, but --streams is %d", cfg.Users, cfg.Streams)
	}
	if errs.Check("ramp", c.Ramp.Err()) && c.Ramp.T <= 0 {
		errs.Add("ramp", "must be greater than 0")
	}
	cfg.Ramp = c.Ramp.T
	errs.NotNegative("idle", c.Idle)
	errs.Between("duration", c.Duration, 10*time.Millisecond, 24*time.Hour)
	errs.Between("patience", c.Patience, 10*time.Millisecond, time.Hour)
	errs.Check("rate", c.Rate.Err())
	errs.Within("outstanding", c.Outstanding, 0, 1<<30)
	errs.Within("messages", c.Messages, 0, 1<<30)
	if errs.Check("size", c.Size.Err()) && (c.Size.T < load.MinSize || c.Size.T > 64<<20) {
		errs.Add("size", "must be between %d bytes and 64 MiB", load.MinSize)
	}
	cfg.Idle, cfg.Duration, cfg.Patience = c.Idle.T, c.Duration.T, c.Patience.T
	cfg.Rate, cfg.Outstanding, cfg.Messages, cfg.Size = c.Rate.T, c.Outstanding.T, c.Messages.T, c.Size.T
	if c.Rate.T == flags.Auto {
		cfg.Rate = c.autoRate(cfg)
	}
	app.CheckFeed(&errs, c.Feed, c.StreamKey)
	c.channels().Check(&errs)
	c.checkRoom(&errs, &cfg)
	return cfg, server, errs.Err()
}

// channels returns the flags for the names of channels, without groups.
func (c *Config) channels() *app.ChannelConfig {
	return &app.ChannelConfig{ChannelPrefix: c.ChannelPrefix, TopicSeparator: c.TopicSeparator}
}

// autoRate returns the rate for about 5,000 deliveries per second. All hosts can reach it, and it is sufficient for
// percentiles.
func (c *Config) autoRate(cfg load.Config) float64 {
	if cfg.Outstanding > 0 || cfg.Streams < 1 {
		return 0
	}
	const deliveries = 5000
	if cfg.Broadcast {
		return max(deliveries/float64(cfg.Streams), 1)
	}
	return max(deliveries*float64(cfg.Users)/float64(cfg.Streams), 1)
}

// targets parses --url. It adds ?user={user} if neither a URL nor a header selects the user.
func (c *Config) targets(ctx context.Context, errs *flags.Errors, cfg *load.Config) {
	templated := false
	for _, h := range cfg.Headers {
		templated = templated || strings.Contains(h.Value, load.UserMark)
	}
	for _, u := range c.URL {
		t, err := load.ParseTarget(ctx, u)
		if !errs.Check("url", err) {
			continue
		}
		c.checkIsLocal(ctx, errs, "url", netip.MustParseAddrPort(t.Addr).Addr().String()) // ParseTarget returns a valid address
		templated = templated || t.Templated()
		cfg.Targets = append(cfg.Targets, t)
	}
	if !templated {
		for i, t := range cfg.Targets {
			cfg.Targets[i] = t.WithUser()
		}
	}
}
