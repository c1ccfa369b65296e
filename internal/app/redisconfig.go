package app

import (
	"strings"

	"usercast/internal/flags"
	"usercast/transport/redis"
)

// RedisConfig holds the flags that select the Redis of a command.
type RedisConfig struct {
	Redis                     []string `sep:"none" default:"${redis_default}" placeholder:"URL" help:"Redis URL: redis://, rediss://, unix://, redis+sentinel://h1,h2/<master>, rediss+sentinel://, redis+cluster://h1,h2 or rediss+cluster://. Repeatable for serve: independent primaries across which the app distributes its users. The database number (/3, ?db=3, /<master>/3) applies to the Redis stream only; channels do not belong to a database (default: ${default})."`
	RedisPasswordFile         string   `placeholder:"FILE" help:"File with the Redis password."`
	RedisSentinelPasswordFile string   `placeholder:"FILE" help:"File with the password of the Sentinels, if it differs from that of Redis. Set their user with ?sentinel_user= in the URL."`
	RedisTLSCA                string   `name:"redis-tls-ca" placeholder:"FILE" help:"PEM file with the CA certificate to trust for Redis connections with TLS."`
	RedisTLSCert              string   `name:"redis-tls-cert" placeholder:"FILE" help:"PEM file with the client certificate for Redis connections with TLS."`
	RedisTLSKey               string   `name:"redis-tls-key" placeholder:"FILE" help:"PEM file with the key of the client certificate."`

	password, sentinelPassword string // set by Servers: the contents of the files
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
	for _, file := range []struct {
		flag, name string
		secret     *string
	}{{"redis-password-file", c.RedisPasswordFile, &c.password}, {"redis-sentinel-password-file", c.RedisSentinelPasswordFile, &c.sentinelPassword}} {
		if file.name == "" {
			continue
		}
		var err error
		if *file.secret, err = flags.ReadSecret(file.name); !errs.Check(file.flag, err) {
			return nil
		}
	}
	named := make(map[string]bool)
	for _, url := range c.Redis {
		s, err := redis.ParseServer(url, redis.ServerOptions{
			Password: c.password, SentinelPassword: c.sentinelPassword,
			TLSCAFile: c.RedisTLSCA, TLSCertFile: c.RedisTLSCert, TLSKeyFile: c.RedisTLSKey,
		})
		if err != nil && strings.HasPrefix(err.Error(), "--") { // about another flag
			errs.AddError(err)
			continue
		}
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
