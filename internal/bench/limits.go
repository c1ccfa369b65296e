package bench

import (
	"context"
	"net/url"
	"strings"

	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/internal/load"
	"usercast/transport/redis"
)

// checkIsLocal requires a host on this machine: load on the machines of others is an attack.
func (c *Config) checkIsLocal(ctx context.Context, errs *flags.Errors, flag, host string) {
	if c.YesIOwn {
		return
	}
	if err := load.CheckLocal(ctx, host); err != nil {
		errs.Add(flag, "%w; to load a machine of yours, give --yes-i-own-it", err)
	}
}

func (c *Config) checkRedisIsLocal(ctx context.Context, errs *flags.Errors, server *redis.Server) {
	switch u, _, _ := strings.Cut(c.Redis[0], "://"); u {
	case "unix":
	case "redis", "rediss":
		if at, err := url.Parse("redis://" + server.Name()); err == nil {
			c.checkIsLocal(ctx, errs, "redis", at.Hostname())
		}
	default:
		if !c.YesIOwn {
			errs.Add("redis", "where Sentinels and clusters lead to cannot be known beforehand; if it is all yours, give --yes-i-own-it")
		}
	}
}

// checkRoom requires descriptors and ports for the streams.
func (c *Config) checkRoom(errs *flags.Errors, cfg *load.Config) {
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
