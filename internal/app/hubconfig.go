package app

import (
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// HubConfig is the command line of serve. check has its flags, too.
type HubConfig struct {
	Config
	RedisConfig

	AuthConfig

	DrainDelay flags.Duration `default:"5s" placeholder:"DURATION" help:"Delay between SIGTERM and closing the first stream (default: ${default})."`
	Drain      flags.Duration `default:"15s" placeholder:"DURATION" help:"Time over which open streams are then closed (default: ${default})."`

	EnvFile     string         `placeholder:"FILE" help:"File with USERCAST_<FLAG>=value lines, for flags that are set neither on the command line nor in the environment. SIGHUP reloads --allow-origin and --log-level from it."`
	ReloadEvery flags.Duration `default:"0" placeholder:"DURATION" help:"How often to check the reloadable files for changes; 0 reloads them on SIGHUP only (default: ${default})."`
}

// Check adds everything that is wrong with c, and returns the Redis that could be parsed.
func (c *HubConfig) Check(errs *flags.Errors) []*redis.Server {
	if !errs.Check("env-file", c.Settings.Err()) {
		return nil // its values are missing in all other flags
	}
	c.Config.Check(errs)
	servers := c.Servers(errs)
	if c.Feed == FeedStream && len(c.Redis) > 1 {
		errs.Add("redis", "give one with --feed stream: a stream is in one place")
	}
	errs.NotNegative("drain-delay", c.DrainDelay)
	errs.NotNegative("drain", c.Drain)
	errs.NotNegative("reload-every", c.ReloadEvery)
	c.AuthConfig.Check(errs, c.Listen)
	return servers
}
