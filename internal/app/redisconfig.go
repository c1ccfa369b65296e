package app

import (
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// RedisConfig holds the flags that select the Redis of a command.
type RedisConfig struct {
	Redis             []string `sep:"none" default:"${redis_default}" placeholder:"URL" help:"Redis URL: redis://, rediss://, unix://, redis+sentinel://h1,h2/<master> or redis+cluster://h1,h2. Repeatable for serve: independent primaries across which the app distributes its users. The database number (/3, ?db=3, /<master>/3) applies to the stream only; channels do not belong to a database (default: ${default})."`
	RedisPasswordFile string   `placeholder:"FILE" help:"File with the Redis password."`
	RedisTLSCA        string   `name:"redis-tls-ca" placeholder:"FILE" help:"PEM file with the CA certificate to trust for rediss:// connections."`

	password string // set by Servers: the content of the file
}

// Server is like Servers, for a command that connects to one Redis. It returns nil if a flag is invalid.
func (c *RedisConfig) Server(errs *flags.Errors) *redis.Server {
	if len(c.Redis) != 1 {
		errs.Add("redis", "exactly one URL is required")
		return nil
	}
	if servers := c.Servers(errs); len(servers) == 1 {
		return servers[0]
	}
	return nil
}

// Servers parses the flags and adds their errors to errs. It returns the servers of the valid URLs.
func (c *RedisConfig) Servers(errs *flags.Errors) (servers []*redis.Server) {
	if c.RedisPasswordFile != "" {
		var err error
		c.password, err = flags.ReadSecret(c.RedisPasswordFile)
		if !errs.Check("redis-password-file", err) {
			return nil
		}
	}
	named := make(map[string]bool)
	for _, url := range c.Redis {
		s, err := redis.ParseServer(url, redis.ServerOptions{Password: c.password, TLSCAFile: c.RedisTLSCA})
		if !errs.Check("redis", err) {
			continue
		}
		if named[s.Name()] {
			errs.Add("redis", "%s is set twice", s.Name())
		}
		named[s.Name()] = true
		servers = append(servers, s)
	}
	return servers
}
