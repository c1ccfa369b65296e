package main

import (
	"context"
	"log/slog"
	"sync"

	"usercast/internal/logqueue"
	"usercast/internal/systemd"
	"usercast/transport/redis"
)

// hubConfig is what a hub is started with: serve starts one, check looks at it.
type hubConfig struct {
	Config
	redisConfig

	authConfig

	DrainDelay duration `default:"5s" placeholder:"DURATION" help:"From SIGTERM to the end of the first stream (${default})."`
	Drain      duration `default:"15s" placeholder:"DURATION" help:"Over which streams then end (${default})."`

	EnvFile     string   `placeholder:"FILE" help:"USERCAST_<FLAG>=value lines, for flags that are neither here nor in the environment. SIGHUP reads --allow-origin and --log-level from it anew."`
	ReloadEvery duration `default:"0" placeholder:"DURATION" help:"How often to look whether a file has changed that SIGHUP would read anew; 0: only then (${default})."`
}

// check adds everything that is wrong with c, and returns the Redis that could be read.
func (c *hubConfig) check(k *checker) []*redis.Server {
	if !k.read("env-file", c.settings.err) {
		return nil // what it was to say is missing everywhere
	}
	c.Config.check(k)
	servers := c.servers(k)
	if c.Feed == feedStream && len(c.Redis) > 1 {
		k.wrong("redis", "give one with --feed stream: a stream is in one place")
	}
	k.notNegative("drain-delay", c.DrainDelay)
	k.notNegative("drain", c.Drain)
	k.notNegative("reload-every", c.ReloadEvery)
	c.authConfig.check(k, c.Listen)
	return servers
}

type serveCmd struct{ hubConfig }

func (c *serveCmd) Run(ctx context.Context, args commandLine, queue *logqueue.Writer) error {
	hangUp, stopHangUps := hangUps() // first: until then SIGHUP ends the process
	defer stopHangUps()
	var k checker
	servers := c.check(&k)
	if err := k.err(); err != nil {
		return err
	}
	var level slog.LevelVar
	named, _ := parseLevel(c.LogLevel)
	level.Set(named)
	log := newLogFrom(&c.Config, &level, queue)
	defer redirectLog(log)()
	if args.holdsPassword() {
		log.Warn(passwordSeen)
	}
	for _, s := range servers {
		if s.Insecure() {
			log.Warn("redis certificate is not verified", slog.String("redis", s.Name()))
		}
	}
	for _, u := range c.unusedByFeed() {
		log.Warn("flag has no effect with this feed", slog.String("flag", u.flag), slog.String("feed", c.Feed), slog.String("hint", u.hint))
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
		Checks:       door.checks,
		Navigate:     c.Auth == authInsecure && isLoopback(c.Listen),
		LoopbackHost: c.Auth == authInsecure && isLoopback(c.Listen) && !c.AuthInsecureAnywhere,
		DrainDelay:   c.DrainDelay.T,
		Drain:        c.Drain.T,
		Manager:      systemd.New(log),
		Log:          log,
		LogDropped:   queue.Dropped,
	})
	if err != nil {
		return err
	}
	reloader := newReloader(c, args, app, c.items(app, &level, servers, door.jwt)...)
	// Also while the hub drains, which may take long.
	reloading, stopReloading := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { reloader.run(reloading, hangUp) })
	defer running.Wait()
	defer stopReloading()
	return app.Run(ctx)
}
