package main

import (
	"context"
	"log/slog"
	"os"

	"usercast/auth"
)

type serveCmd struct {
	Config
	redisConfig

	Auth                 string   `placeholder:"MODE" help:"Who is asking: insecure believes ?user=<id>. Required."`
	AuthInsecureAnywhere bool     `help:"Allow --auth insecure on a listener that others can reach."`
	DrainDelay           duration `default:"5s" placeholder:"DURATION" help:"From SIGTERM to the end of the first stream (${default})."`
	Drain                duration `default:"15s" placeholder:"DURATION" help:"Over which streams then end (${default})."`
}

func (c *serveCmd) Run(ctx context.Context) error {
	var k checker
	c.check(&k)
	servers := c.servers(&k)
	if c.Feed == feedStream && len(c.Redis) > 1 {
		k.wrong("redis", "give one with --feed stream: a stream is in one place")
	}
	k.notNegative("drain-delay", c.DrainDelay)
	k.notNegative("drain", c.Drain)
	switch c.Auth {
	case "insecure":
		if !isLoopback(c.Listen) && !c.AuthInsecureAnywhere {
			k.wrong("auth", "insecure lets anybody who reaches %s read any user's messages: listen on 127.0.0.1, or give --auth-insecure-anywhere", c.Listen)
		}
	case "":
		k.wrong("auth", "say who may read what; there is no default. insecure: believe ?user=<id>, for trying things out on this machine")
	default:
		k.wrong("auth", "%q is not a mode; there is: insecure", c.Auth)
	}
	if err := k.err(); err != nil {
		return err
	}
	log := newLog(&c.Config, os.Stderr)
	for _, s := range servers {
		if s.Insecure() {
			log.Warn("redis certificate is not verified", slog.String("redis", s.Name()))
		}
	}
	app, err := NewApp(c.Config, Parts{
		Redis:        servers,
		Authenticate: auth.Insecure,
		Navigate:     isLoopback(c.Listen),
		DrainDelay:   c.DrainDelay.T,
		Drain:        c.Drain.T,
		Log:          log,
	})
	if err != nil {
		return err
	}
	return app.Run(ctx)
}
