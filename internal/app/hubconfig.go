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

	DrainDelay flags.Duration `default:"5s" placeholder:"DURATION" help:"From SIGTERM to the end of the first stream (${default})."`
	Drain      flags.Duration `default:"15s" placeholder:"DURATION" help:"Over which streams then end (${default})."`

	EnvFile     string         `placeholder:"FILE" help:"USERCAST_<FLAG>=value lines, for flags that are neither here nor in the environment. SIGHUP reads --allow-origin and --log-level from it anew."`
	ReloadEvery flags.Duration `default:"0" placeholder:"DURATION" help:"How often to look whether a file has changed that SIGHUP would read anew; 0: only then (${default})."`
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
