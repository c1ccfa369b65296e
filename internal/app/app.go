package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"usercast/hub"
	"usercast/internal/flags"
	"usercast/internal/systemd"
	"usercast/metrics"
	"usercast/transport/admin"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// Parts are the dependencies of an App, in addition to its Config. Redis, Auth.Authenticate and Logger are required.
type Parts struct {
	Redis            []*redis.Server // one or more
	Auth             Authn
	Navigate         bool             // a stream can be opened from the address bar
	LoopbackHost     bool             // requests whose Host is not a loopback name are rejected
	Mount            func(*echo.Echo) // adds routes to the public listener
	DrainDelay       time.Duration    // between the end of Run's context and closing the first stream
	Drain            time.Duration    // time over which streams are closed
	Manager          *systemd.Manager // is notified of the hub's state; may be nil
	SubscribeTimeout time.Duration    // how long the manager waits for the first subscription; 0 means 10 s
	Logger           *slog.Logger     // must not block, because it is used while messages are routed
	LogDropped       func() uint64    // returns the number of dropped log lines
	Version          string
}

// An App is a complete hub with feeds, streams and listeners.
type App struct {
	cfg   Config
	parts Parts
	log   *slog.Logger

	hub      *hub.Hub
	streams  *sse.Handler
	feeds    []feed          // one per Redis URL
	commands *redis.Commands // sent to the first Redis
	presence *redis.Presence // nil without --presence
	health   health

	public      *sse.Server
	certificate *certificate // of the public listener; nil without TLS
	admin       *adminServer
}

// New creates an App and opens its listeners, so that a port in use is reported before anything runs. The config must have
// passed Check.
func New(cfg Config, parts Parts) (*App, error) {
	a := &App{cfg: cfg, parts: parts, log: parts.Logger}
	a.health.feeds = a.FeedStats
	streams, conns := DescriptorBudget()
	limits := limitsOf(&cfg, streams)
	connect := a.newHub(limits)
	a.streams = newStreams(&cfg, parts, a.hub, conns-streams)
	for _, server := range parts.Redis {
		feed, err := connect(server)
		if err != nil {
			return nil, err
		}
		a.feeds = append(a.feeds, feed)
	}
	a.commands = redis.NewCommands(parts.Redis[0])
	a.commands.PublishNearHubs(a.cfg.ControlChannelName())
	a.commands.UseChannels(a.cfg.Channels())
	if cfg.Presence {
		var err error
		if a.presence, err = redis.NewPresence(redis.PresenceConfig{Commands: a.commands, Hub: a.hub, Prefix: cfg.ChannelPrefix, Logger: a.log}); err != nil {
			return nil, err
		}
	}
	if err := a.listen(limits, conns); err != nil {
		return nil, err
	}
	return a, nil
}

// listen opens both listeners.
func (a *App) listen(limits Limits, maxConns int) (err error) {
	if a.cfg.TLSCert != "" {
		if a.certificate, err = newCertificate(a.cfg.TLSCert, a.cfg.TLSKey, a.log); err != nil {
			return err
		}
	}
	if a.public, err = a.newPublicServer(maxConns); err != nil {
		return ListenError("listen", a.cfg.Listen, err)
	}
	sources := metrics.Sources{Hub: a.hub.Stats, Streams: a.streams.Stats, Feeds: a.FeedStats, Checks: a.parts.Auth.Stats, LogDropped: a.parts.LogDropped, Version: a.parts.Version}
	online := admin.Presence{Redis: a.parts.Redis[0].Name()}
	if a.presence != nil {
		sources.Online = a.presence.Users
		online.Online, online.Count = a.presence.Online, a.presence.Count
	}
	c := console{hub: a.hub, health: &a.health, sources: sources, limits: limits, started: time.Now(), tail: a.cfg.ConsoleTail, groups: a.cfg.GroupPrefix != "", separator: a.cfg.TopicSeparator.T, log: a.log}
	if a.admin, err = newAdminServer(&a.cfg, c, api{cfg: &a.cfg, hub: a.hub, commands: a.commands, redis: a.parts.Redis[0].Name(), position: &position{hub: a.hub, feeds: a.FeedStats}}, online); err != nil {
		a.public.Close()
		return err
	}
	return nil
}

// FeedStats returns the statistics of each feed, in the order of --redis.
func (a *App) FeedStats() []redis.Stats {
	stats := make([]redis.Stats, len(a.feeds))
	for i, feed := range a.feeds {
		stats[i] = feed.Stats()
	}
	return stats
}

// Servers returns the HTTP servers of the two listeners. Their timeouts can be changed before Run.
func (a *App) Servers() (public, admin *http.Server) { return a.public.HTTP(), a.admin.http }

// Hub returns the hub with which streams are registered.
func (a *App) Hub() *hub.Hub { return a.hub }

// StreamStats returns the statistics of the streams.
func (a *App) StreamStats() sse.Stats { return a.streams.Stats() }

// PublicAddr returns the address of the public listener.
func (a *App) PublicAddr() string { return a.public.Addr().String() }

// AdminAddr returns the address of the admin listener.
func (a *App) AdminAddr() string { return a.admin.listener.Addr().String() }

// ErrInterrupt, as the cause of Run's context, skips the drain delay and closes all streams immediately.
var ErrInterrupt = errors.New("received SIGINT")

// Run serves until ctx is done or a listener fails, then drains. It returns when no goroutine or connection of the app is
// left. The error is the one of the failed listener.
func (a *App) Run(ctx context.Context) error {
	var running sync.WaitGroup
	feedCtx, stopFeed := context.WithCancel(context.Background())
	defer running.Wait()
	defer stopFeed()
	defer a.commands.Close()
	for _, feed := range a.feeds {
		running.Go(func() { feed.Run(feedCtx) })
	}
	if a.presence != nil {
		running.Go(func() { a.presence.Run(feedCtx) })
	}
	running.Go(func() { manageMemory(feedCtx, &a.cfg, a.hub) })
	if m := a.parts.Manager; m != nil {
		link := managerLink{manager: m, subscribeTimeout: a.parts.SubscribeTimeout, hub: a.hub, health: &a.health}
		running.Go(func() { link.run(feedCtx) })
	}

	failed := make(chan error, 2) // one per server
	for _, serve := range []func() error{a.public.Serve, a.admin.serve} {
		running.Go(func() {
			if err := serve(); err != nil {
				failed <- err
			}
		})
	}
	a.log.Info("listening", slog.String("public", a.PublicAddr()), slog.String("admin", a.AdminAddr()), slog.String("path", a.cfg.Path))

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("listener failed: %w", err)
	}
	a.drain(errors.Is(context.Cause(ctx), ErrInterrupt) || err != nil)
	return err
}

// drain closes all streams, then the listeners. In the meantime new clients are rejected temporarily, because a refused
// connection would make a load balancer return 502.
func (a *App) drain(short bool) {
	a.health.draining.Store(true)
	a.hub.Refuse()
	a.public.Drain()
	delay, over := a.parts.DrainDelay, a.parts.Drain
	if short {
		delay, over = 0, 0
	}
	if m := a.parts.Manager; m != nil {
		m.Stopping(flags.Sum(delay, over, a.cfg.WriteTimeout.T, 5*time.Second)) // 5 s for pending requests
	}
	a.log.Info("stopping", slog.Int("streams", a.hub.Stats().Clients), slog.Duration("drain_delay", delay), slog.Duration("drain", over))
	stopMarking := a.startMarker()
	time.Sleep(delay)
	a.hub.Finish(hub.ReasonDrain, over)
	a.hub.Close()
	a.streams.Wait()
	if a.parts.Auth.Close != nil {
		a.parts.Auth.Close() // rejects pending authentications temporarily; otherwise their connections would be closed without a response
	}
	a.admin.endStreams()
	for _, shutdown := range []func(context.Context) error{a.public.Shutdown, a.admin.shutdown} {
		// Pending requests have one second to complete.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		shutdown(ctx)
		cancel()
	}
	stopMarking()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	a.writeMarkers(ctx)
	a.log.Info("stopped")
}

// startMarker writes a marker in the background. stop waits for it, but not for Redis.
func (a *App) startMarker() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var writing sync.WaitGroup
	writing.Go(func() { a.writeMarkers(ctx) })
	return func() {
		cancel()
		writing.Wait()
	}
}

// writeMarkers publishes what this hub has received so far. A hub that drains does so twice (R13): first so that its pages
// take a recent id along, and at the end so that other hubs can find out what they have missed, because this hub may be the
// only one that knows.
func (a *App) writeMarkers(ctx context.Context) {
	for _, f := range a.feeds {
		if f, ok := f.(*redis.PubSub); ok {
			f.WriteMarker(ctx)
		}
	}
}
