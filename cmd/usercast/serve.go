package main

import (
	"context"
	"log/slog"
	"os"
)

type serveCmd struct {
	Config
	redisConfig

	authConfig

	DrainDelay duration `default:"5s" placeholder:"DURATION" help:"From SIGTERM to the end of the first stream (${default})."`
	Drain      duration `default:"15s" placeholder:"DURATION" help:"Over which streams then end (${default})."`
}

func (c *serveCmd) Run(ctx context.Context, args commandLine) error {
	var k checker
	c.Config.check(&k)
	servers := c.servers(&k)
	if c.Feed == feedStream && len(c.Redis) > 1 {
		k.wrong("redis", "give one with --feed stream: a stream is in one place")
	}
	k.notNegative("drain-delay", c.DrainDelay)
	k.notNegative("drain", c.Drain)
	c.authConfig.check(&k, c.Listen)
	if err := k.err(); err != nil {
		return err
	}
	log := newLog(&c.Config, os.Stderr)
	if args.holdsPassword() {
		log.Warn(passwordSeen)
	}
	for _, s := range servers {
		if s.Insecure() {
			log.Warn("redis certificate is not verified", slog.String("redis", s.Name()))
		}
	}
	door, err := c.open(log)
	if err != nil {
		return err
	}
	defer door.close()
	app, err := NewApp(c.Config, Parts{
		Redis:        servers,
		Authenticate: door.authenticate,
		Forget:       door.forget,
		StopAsking:   door.close,
		Navigate:     c.Auth == authInsecure && isLoopback(c.Listen),
		LoopbackHost: c.Auth == authInsecure && isLoopback(c.Listen) && !c.AuthInsecureAnywhere,
		DrainDelay:   c.DrainDelay.T,
		Drain:        c.Drain.T,
		Log:          log,
	})
	if err != nil {
		return err
	}
	return app.Run(ctx)
}
