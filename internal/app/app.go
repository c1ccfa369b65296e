package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"usercast/hub"
	"usercast/internal/flags"
	"usercast/internal/systemd"
	"usercast/metrics"
	"usercast/transport/admin"
	"usercast/transport/redis"
	"usercast/transport/sse"
	"usercast/transport/sse/echosse"
)

// GapSpread is the longest time over which a gap reaches the pages that have
// nothing else to get: short enough that nobody looks at stale data for long.
const GapSpread = 3 * time.Second

// fanOut is how many streams a broadcast is handed to before other messages get their
// turn: about a twentieth of a millisecond's work.
const fanOut = 512

// queueGrace is how long a queue may be over its bounds: longer than a busy
// machine keeps a writer waiting for its turn, shorter than a reader that has
// stopped could make much of.
const queueGrace = 250 * time.Millisecond

// Parts are what an App needs in addition to its Config. All but Redis, Auth.Authenticate and Logger may be zero.
type Parts struct {
	Redis            []*redis.Server // one or more
	Auth             Authn
	Navigate         bool             // the address bar may open a stream
	LoopbackHost     bool             // a Host that is not loopback is rejected
	Mount            func(*echo.Echo) // adds routes to the public listener
	DrainDelay       time.Duration    // from the end of Run's context to the first stream's end
	Drain            time.Duration    // over which streams end
	Manager          *systemd.Manager // is notified of the state of the hub
	SubscribeTimeout time.Duration    // for which the manager waits for the first subscription; 0: 10 s
	Logger           *slog.Logger     // must not block: it is written to on the path of messages
	LogDropped       func() uint64    // number of log lines that were dropped
	Version          string
}

// An App is the whole hub: feed, routing, streams and listeners.
type App struct {
	cfg    Config
	parts  Parts
	log    *slog.Logger
	limits Limits

	hub        *hub.Hub
	pubSub     *hub.PubSub     // a.hub, unless the feed is a stream
	streamFeed *hub.StreamFeed // a.hub, if the feed is a stream
	streams    *sse.Handler
	feeds      []feed            // one for each Redis
	stream     *redis.StreamFeed // the one feed, if it is a stream
	commands   *redis.Commands   // to the first of them

	public      *sse.Server
	admin       *http.Server
	adminL      net.Listener
	certificate *certificate // nil: no TLS
	adminToken  atomic.Value // a string; "": there is none
	health      health
	stopped     chan struct{} // closed right before the listeners are
}

// New builds the app and opens its listeners, so that a taken port is known
// before anything runs. The config must have passed Check.
func New(cfg Config, parts Parts) (*App, error) {
	a := &App{cfg: cfg, parts: parts, log: parts.Logger, stopped: make(chan struct{})}
	a.health.feeds = a.FeedStats
	streams, connections := DescriptorBudget()
	a.limits = limitsOf(&cfg, streams)
	hubConfig := hub.Config{
		Encode:            sse.EncodeEntry,
		BroadcastUser:     cfg.BroadcastUser,
		QueueFrames:       cfg.Queue.T,
		QueueBytes:        cfg.QueueBytes.T,
		QueueGrace:        queueGrace,
		QueueTotalBytes:   int64(cfg.QueueTotalBytes.T),
		MaxClients:        cmp.Or(a.limits.MaxClients, hub.NoLimit),
		MaxClientsPerUser: cmp.Or(cfg.MaxClientsPerUser.T, hub.NoLimit),
		FanOut:            fanOut,
		GapSpread:         GapSpread,
		HistoryPerUser:    cmp.Or(cfg.HistoryPerUser.T, hub.Off),
		HistoryAge:        cmp.Or(cfg.HistoryAge.T, hub.Off),
		HistoryBytes:      cmp.Or(int64(cfg.HistoryBytes.T), hub.Off),
	}
	if cfg.Feed == FeedStream {
		a.streamFeed = hub.NewStreamFeed(hubConfig, func(q *hub.Query) { a.stream.Query(q) })
		a.hub = a.streamFeed.Hub
	} else {
		a.pubSub = hub.NewPubSub(hubConfig)
		a.hub = a.pubSub.Hub
	}
	a.streams = sse.New(sse.Config{
		Hub:          a.hub,
		Authenticate: parts.Auth.Authenticate,
		Origins:      sse.Origins{Allow: cfg.AllowOrigin, Navigate: parts.Navigate, LoopbackHost: parts.LoopbackHost},
		PingInterval: cfg.PingInterval.T,
		WriteTimeout: cfg.WriteTimeout.T,
		Retry:        cfg.Retry.T,
		MaxAge:       cfg.MaxAge.T,
		MaxHeld:      maxHeld(connections - streams),
		Portable:     cfg.Writer == WriterPortable,
		Logger:       a.log,
	})
	for _, server := range parts.Redis {
		feed, err := a.newFeed(server)
		if err != nil {
			return nil, err
		}
		a.feeds = append(a.feeds, feed)
	}
	a.commands = redis.NewCommands(parts.Redis[0])
	if err := a.listen(connections); err != nil {
		return nil, err
	}
	return a, nil
}

// listen opens both listeners and builds the servers for them.
func (a *App) listen(maxConns int) (err error) {
	var secret string
	if a.cfg.AdminTokenFile != "" {
		if secret, err = flags.ReadSecret(a.cfg.AdminTokenFile); err != nil {
			return err
		}
	}
	a.adminToken.Store(secret)
	public := admin.NewEcho()
	public.Use(echosse.CORS(a.streams))
	public.Any(a.cfg.Path, echosse.Handler(a.streams))
	admin.MountHealth(public, a.health.status, false)
	if a.parts.Mount != nil {
		a.parts.Mount(public)
	}
	sources := metrics.Sources{Hub: a.hub.Stats, Streams: a.streams.Stats, Feeds: a.FeedStats, Checks: a.parts.Auth.Stats, LogDropped: a.parts.LogDropped, Version: a.parts.Version}
	token := func() string { return a.adminToken.Load().(string) }
	private := admin.NewEcho()
	admin.Mount(private, a.health.status, promhttp.HandlerFor(metrics.NewRegistry(sources), promhttp.HandlerOpts{}), token)
	admin.MountUsers(private, (&users{&a.cfg, a.hub, a.commands}).api(), token)
	console := console{hub: a.hub, health: &a.health, sources: sources, limits: a.limits, started: time.Now(), tail: a.cfg.ConsoleTail, log: a.log}
	admin.MountConsole(private, console.page(a.stopped), token)

	sc := sse.ServerConfig{
		Address: a.cfg.Listen, Streams: a.streams, Path: a.cfg.Path, Handler: public,
		SendBuffer: a.cfg.SendBuffer.T, MaxConns: maxConns, ErrorLog: log.New(serverLog{a.log}, "", 0),
	}
	if a.cfg.TLSCert != "" {
		if a.certificate, err = newCertificate(a.cfg.TLSCert, a.cfg.TLSKey, a.log); err != nil {
			return err
		}
		sc.TLS = &tls.Config{GetCertificate: a.certificate.get}
	}
	if a.public, err = sse.NewServer(context.Background(), sc); err != nil {
		return ListenError("listen", a.cfg.Listen, err)
	}
	a.admin = a.newAdminServer(private)
	// An admin client that vanishes must be noticed, too: its streams have few places.
	a.adminL, err = sse.Listen(context.Background(), a.cfg.AdminListen, a.cfg.SendBuffer.T, a.cfg.WriteTimeout.T)
	if err != nil {
		a.public.Close()
		return ListenError("admin-listen", a.cfg.AdminListen, err)
	}
	return nil
}

// maxHeld is how many temporary rejections may have their end put off, if so many descriptors are reserved for new
// connections: half of them. Without a limit on descriptors, sse.Config has a bound of its own.
func maxHeld(reserve int) int {
	if reserve == 0 {
		return 0
	}
	if reserve /= 2; reserve == 0 {
		return -1
	}
	return reserve
}

// Scheme is that of the stream's URL.
func (c *Config) Scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

// ListenError is one plain line about a listener that could not be opened.
func ListenError(flag, address string, err error) error {
	why := err
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		why = errno
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("cannot listen on %s: the port is taken; stop what listens there or choose another with --%s", address, flag)
	}
	return fmt.Errorf("cannot listen on %s (--%s): %w", address, flag, why)
}

// newAdminServer has no WriteTimeout: it would end the console's streams.
func (a *App) newAdminServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h,
		// A request that dribbles in, or a body that never comes, holds a descriptor.
		// Streams lift the second: what they read is the peer's leaving.
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    64 << 10, // room for large cookies, not for header bombs
		ErrorLog:          log.New(serverLog{a.log}, "", 0),
	}
}

// FeedStats returns the counts of each feed, in the order of --redis.
func (a *App) FeedStats() []redis.Stats {
	stats := make([]redis.Stats, len(a.feeds))
	for i, feed := range a.feeds {
		stats[i] = feed.Stats()
	}
	return stats
}

// Servers are those of the two listeners. Their timeouts can be changed before Run.
func (a *App) Servers() (public, admin *http.Server) { return a.public.HTTP(), a.admin }

// Hub is where the streams of the app are registered.
func (a *App) Hub() *hub.Hub { return a.hub }

// StreamStats returns the counts of the public listener's streams.
func (a *App) StreamStats() sse.Stats { return a.streams.Stats() }

// PublicAddr is where the public listener listens.
func (a *App) PublicAddr() string { return a.public.Addr().String() }

// AdminAddr is where the admin listener listens.
func (a *App) AdminAddr() string { return a.adminL.Addr().String() }

// ErrInterrupt as the cause of Run's context makes the draining short.
var ErrInterrupt = errors.New("asked to stop soon")

// Run serves until ctx is done, drains, and returns when nothing of the app is
// left. With ErrInterrupt as the context's cause the draining is short. The error
// is of a listener that failed.
func (a *App) Run(ctx context.Context) error {
	var running sync.WaitGroup
	feedCtx, stopFeed := context.WithCancel(context.Background())
	defer running.Wait()
	defer stopFeed()
	defer a.commands.Close()
	for _, feed := range a.feeds {
		running.Go(func() { feed.Run(feedCtx) })
	}
	running.Go(func() { manageMemory(feedCtx, &a.cfg, a.hub) })
	if m := a.parts.Manager; m != nil {
		link := managerLink{manager: m, subscribeTimeout: a.parts.SubscribeTimeout, hub: a.hub, health: &a.health}
		running.Go(func() { link.run(feedCtx) })
	}

	failed := make(chan error, 2) // one for each server
	running.Go(func() {
		if err := a.public.Serve(); err != nil {
			failed <- err
		}
	})
	running.Go(func() {
		if err := a.admin.Serve(a.adminL); !errors.Is(err, http.ErrServerClosed) {
			failed <- err
		}
	})
	a.log.Info("listening", slog.String("public", a.PublicAddr()), slog.String("admin", a.AdminAddr()), slog.String("path", a.cfg.Path))

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
		err = fmt.Errorf("a listener failed: %w", err)
	}
	a.drain(errors.Is(context.Cause(ctx), ErrInterrupt) || err != nil)
	return err
}

// drain ends all streams, then the listeners: until then newcomers are told "not
// now", for a refused connection would make a balancer answer 502.
func (a *App) drain(short bool) {
	a.health.draining.Store(true)
	a.hub.Refuse()
	a.public.Drain()
	delay, over := a.parts.DrainDelay, a.parts.Drain
	if short {
		delay, over = 0, 0
	}
	if m := a.parts.Manager; m != nil {
		m.Stopping(flags.Sum(delay, over, a.cfg.WriteTimeout.T, 5*time.Second)) // the last: what is still being answered
	}
	a.log.Info("stopping", slog.Int("clients", a.hub.Stats().Clients), slog.Duration("delay", delay), slog.Duration("over", over))
	time.Sleep(delay)
	a.hub.Finish(hub.ReasonDrain, over)
	a.hub.Close()
	a.streams.Wait()
	if a.parts.Auth.Close != nil {
		a.parts.Auth.Close() // else who waits for the app would be cut off below
	}
	close(a.stopped)
	for _, shutdown := range []func(context.Context) error{a.public.Shutdown, a.admin.Shutdown} {
		// What is still being answered gets a moment.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		shutdown(ctx)
		cancel()
	}
	a.admin.Close()
	a.log.Info("stopped")
}
