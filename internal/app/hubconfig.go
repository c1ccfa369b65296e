package app

import (
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// HubConfig holds the flags of serve, which check also accepts.
type HubConfig struct {
	Config
	RedisConfig

	AuthConfig

	DrainDelay flags.Duration `default:"5s" placeholder:"DURATION" help:"Delay between SIGTERM and closing the first stream (default: ${default})."`
	Drain      flags.Duration `default:"15s" placeholder:"DURATION" help:"Time over which open streams are then closed (default: ${default})."`

	EnvFile     string         `placeholder:"FILE" help:"File with USERCAST_<FLAG>=value lines, for flags that are set neither on the command line nor in the environment. SIGHUP reloads --allow-origin and --log-level from it."`
	ReloadEvery flags.Duration `default:"0" placeholder:"DURATION" help:"How often to check the reloadable files for changes; 0 reloads them on SIGHUP only (default: ${default})."`
}

// Check adds all errors of c to errs, and returns the servers of the valid Redis URLs.
func (c *HubConfig) Check(errs *flags.Errors) []*redis.Server {
	if !errs.Check("env-file", c.Settings.Err()) {
		return nil // the other flags are missing their values from the file
	}
	c.Config.Check(errs)
	servers := c.Servers(errs)
	if c.Feed == FeedStream && len(c.Redis) > 1 {
		errs.Add("redis", "must be a single URL with --feed stream, because a Redis stream is stored on one primary")
	}
	errs.NotNegative("drain-delay", c.DrainDelay)
	errs.NotNegative("drain", c.Drain)
	errs.NotNegative("reload-every", c.ReloadEvery)
	c.AuthConfig.Check(errs, c.Listen)
	if c.Auth == AuthJWT && c.JWTGroupsClaim != defaultGroupsClaim && c.GroupPrefix == "" {
		errs.Add("jwt-groups-claim", needsGroups)
	}
	return servers
}
