package main

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

// config reads the flags.
func (c *benchCmd) config(ctx context.Context) (cfg load.Config, server *redis.Server, err error) {
	var errs flags.Errors
	server = c.Server(&errs)
	if server != nil {
		c.checkRedisIsOurs(ctx, &errs, server)
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
			errs.Add("from", "%q is not an address such as 127.0.0.2", from)
			continue
		}
		cfg.From = append(cfg.From, addr)
	}
	for _, admin := range c.Admin {
		u, err := url.Parse(admin)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
			errs.Add("admin", "is not a URL such as http://127.0.0.1:8081") // unquoted: it may hold a password
			continue
		}
		c.checkIsOurs(ctx, &errs, "admin", u.Hostname())
	}
	cfg.TLS = &tls.Config{InsecureSkipVerify: c.Insecure}
	cfg.Hub = func(ctx context.Context) (load.Samples, error) { return load.Scrape(ctx, c.Admin, cfg.TLS) }

	errs.AtLeast("streams", c.Streams, 1)
	errs.AtLeast("users", c.Users, 0)
	cfg.Streams, cfg.Users, cfg.HTTP2, cfg.Broadcast = c.Streams.T, cmp.Or(c.Users.T, c.Streams.T), c.HTTP2, c.Broadcast
	if cfg.Streams > 0 && cfg.Users > cfg.Streams {
		errs.Add("users", "%d users need as many streams, and there are %d", cfg.Users, cfg.Streams)
	}
	if errs.Check("ramp", c.Ramp.Err()) && c.Ramp.T <= 0 {
		errs.Add("ramp", "must be more than 0")
	}
	cfg.Ramp = c.Ramp.T
	errs.NotNegative("idle", c.Idle)
	errs.Between("duration", c.Duration, 10*time.Millisecond, 24*time.Hour)
	errs.Between("patience", c.Patience, 10*time.Millisecond, time.Hour)
	errs.Check("rate", c.Rate.Err())
	errs.Within("outstanding", c.Outstanding, 0, 1<<30)
	errs.Within("messages", c.Messages, 0, 1<<30)
	if errs.Check("size", c.Size.Err()) && (c.Size.T < load.MinSize || c.Size.T > 64<<20) {
		errs.Add("size", "must be from %d bytes to 64 MiB", load.MinSize)
	}
	cfg.Idle, cfg.Duration, cfg.Patience = c.Idle.T, c.Duration.T, c.Patience.T
	cfg.Rate, cfg.Outstanding, cfg.Messages, cfg.Size = c.Rate.T, c.Outstanding.T, c.Messages.T, c.Size.T
	if c.Rate.T == flags.Auto {
		cfg.Rate = c.autoRate(cfg)
	}
	if c.Feed != app.FeedPubSub && c.Feed != app.FeedStream {
		errs.Add("feed", "%q is neither pubsub nor stream", c.Feed)
	}
	errs.Check("stream-key", redis.ValidateKey(c.StreamKey))
	errs.Check("channel-prefix", redis.ValidatePrefix(c.ChannelPrefix))
	c.checkRoom(&errs, &cfg)
	return cfg, server, errs.Err()
}

// autoRate makes some 5,000 deliveries a second: what every machine does, and enough
// for percentiles.
func (c *benchCmd) autoRate(cfg load.Config) float64 {
	if cfg.Outstanding > 0 || cfg.Streams < 1 {
		return 0
	}
	const deliveries = 5000
	if cfg.Broadcast {
		return max(deliveries/float64(cfg.Streams), 1)
	}
	return max(deliveries*float64(cfg.Users)/float64(cfg.Streams), 1)
}

func (c *benchCmd) targets(ctx context.Context, errs *flags.Errors, cfg *load.Config) {
	templated := false
	for _, h := range cfg.Headers {
		templated = templated || strings.Contains(h.Value, load.UserMark)
	}
	for _, u := range c.URL {
		t, err := load.ParseTarget(ctx, u)
		if !errs.Check("url", err) {
			continue
		}
		c.checkIsOurs(ctx, errs, "url", netip.MustParseAddrPort(t.Addr).Addr().String()) // ParseTarget made it
		templated = templated || t.Templated()
		cfg.Targets = append(cfg.Targets, t)
	}
	if !templated {
		for i, t := range cfg.Targets {
			cfg.Targets[i] = t.WithUser()
		}
	}
}

// checkIsOurs wants a host on this machine: load on others' machines is an attack.
func (c *benchCmd) checkIsOurs(ctx context.Context, errs *flags.Errors, flag, host string) {
	if c.YesIOwn {
		return
	}
	if err := load.CheckLocal(ctx, host); err != nil {
		errs.Add(flag, "%w; to load a machine of yours, give --yes-i-own-it", err)
	}
}

func (c *benchCmd) checkRedisIsOurs(ctx context.Context, errs *flags.Errors, server *redis.Server) {
	switch u, _, _ := strings.Cut(c.Redis[0], "://"); u {
	case "unix":
	case "redis", "rediss":
		if at, err := url.Parse("redis://" + server.Name()); err == nil {
			c.checkIsOurs(ctx, errs, "redis", at.Hostname())
		}
	default:
		if !c.YesIOwn {
			errs.Add("redis", "where Sentinels and clusters lead to cannot be known beforehand; if it is all yours, give --yes-i-own-it")
		}
	}
}

// checkRoom wants descriptors and ports for the streams.
func (c *benchCmd) checkRoom(errs *flags.Errors, cfg *load.Config) {
	if limit, need := app.DescriptorLimit(), cfg.Descriptors(); limit > 0 && need > limit {
		advice := "raise it (ulimit -n), open fewer, or use --http2"
		if cfg.HTTP2 {
			advice = "raise it (ulimit -n) or open fewer"
		}
		errs.Add("streams", "%d need some %d descriptors, and the limit is %d: %s", cfg.Streams, need, limit, advice)
	}
	places := max(len(cfg.From), 1) * max(len(cfg.Targets), 1)
	if ports := localPorts(); !cfg.HTTP2 && ports > 0 && cfg.Streams > ports*places {
		errs.Add("streams", "%d do not fit into the %d local ports of one address: give another --from (127.0.0.2, 127.0.0.3 …), another --url, or --http2", cfg.Streams, ports)
	}
}
