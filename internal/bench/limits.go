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

// checkIsLocal requires a loopback address, because load on hosts of other people is an attack.
func (c *Config) checkIsLocal(ctx context.Context, errs *flags.Errors, flag, host string) {
	if c.YesIOwn {
		return
	}
	if err := load.CheckLocal(ctx, host); err != nil {
		errs.Add(flag, "%w; to load-test another host that you own, set --yes-i-own-it", err)
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
			errs.Add("redis", "the hosts behind a Sentinel or Cluster URL are not known in advance; if you own all of them, set --yes-i-own-it")
		}
	}
}

// checkRoom requires enough file descriptors and local ports for the streams.
func (c *Config) checkRoom(errs *flags.Errors, cfg *load.Config) {
	if limit, need := app.DescriptorLimit(), cfg.Descriptors(); limit > 0 && need > limit {
		advice := "raise it (ulimit -n), open fewer streams, or use --http2"
		if cfg.HTTP2 {
			advice = "raise it (ulimit -n) or open fewer streams"
		}
		errs.Add("streams", "%d streams need about %d file descriptors, but the limit is %d: %s", cfg.Streams, need, limit, advice)
	}
	addresses := max(len(cfg.From), 1) * max(len(cfg.Targets), 1)
	if ports := localPorts(); !cfg.HTTP2 && ports > 0 && cfg.Streams > ports*addresses {
		errs.Add("streams", "%d streams exceed the %d local ports of one address: add another --from (127.0.0.2, 127.0.0.3 …) or --url, or use --http2", cfg.Streams, ports)
	}
}
