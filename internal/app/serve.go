package app

import (
	"context"
	"log/slog"
	"os"
	"sync"

	"usercast/internal/flags"
	"usercast/internal/logqueue"
	"usercast/internal/systemd"
)

// A Process connects Serve to its process.
type Process struct {
	Log      *logqueue.Writer
	HangUps  <-chan os.Signal           // each signal triggers a reload
	Reread   func() (*HubConfig, error) // parses the command line again, with the current content of the file of --env-file
	Warnings []string                   // logged at start
	Version  string
}

// Serve validates c and runs the hub until ctx is done, as App.Run does.
func Serve(ctx context.Context, c *HubConfig, p Process) error {
	var errs flags.Errors
	servers := c.Check(&errs)
	if err := errs.Err(); err != nil {
		return err
	}
	var level slog.LevelVar
	named, _ := parseLevel(c.LogLevel)
	level.Set(named)
	log := newLogFrom(&c.Config, &level, p.Log)
	defer RedirectLog(log)()
	for _, warning := range p.Warnings {
		log.Warn(warning)
	}
	for _, s := range servers {
		if s.Insecure() {
			log.Warn("redis certificate is not verified", slog.String("redis", s.Name()))
		}
	}
	for _, u := range c.UnusedByFeed() {
		log.Warn("flag is ignored with this feed", slog.String("flag", u.Flag), slog.String("feed", c.Feed), slog.String("hint", u.Hint))
	}
	if hint := c.untrustedListener(c.Listen); hint != "" {
		log.Warn("flag is ignored with this listener", slog.String("flag", "--trusted-proxy"), slog.String("listen", c.Listen), slog.String("hint", hint))
	}
	if c.Feed != FeedStream && len(c.Redis) > 1 {
		log.Warn("several redis servers, ids are valid on this hub only", slog.String("hint", "route each page to the same hub (session affinity), or use one Redis"))
	}
	authn, err := c.Open(log)
	if err != nil {
		return err
	}
	if authn.Close != nil {
		defer authn.Close()
	}
	insecure := c.Auth == AuthInsecure && flags.IsLoopback(c.Listen)
	app, err := New(c.Config, Parts{
		Redis:        servers,
		Auth:         authn,
		Navigate:     insecure,
		LoopbackHost: insecure && !c.AuthInsecureAnywhere,
		DrainDelay:   c.DrainDelay.T,
		Drain:        c.Drain.T,
		Manager:      systemd.New(log),
		Logger:       log,
		LogDropped:   p.Log.Dropped,
		Version:      p.Version,
	})
	if err != nil {
		return err
	}
	reloader := newReloader(c, p.Reread, app, reloadItems(c, app, &level, servers, authn.jwt)...)
	// Reloading continues while the hub drains, which may take long.
	reloading, stopReloading := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { reloader.run(reloading, p.HangUps) })
	defer running.Wait()
	defer stopReloading()
	return app.Run(ctx)
}
