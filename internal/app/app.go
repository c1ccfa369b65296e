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
	crowd      *sse.Crowd
	streams    *sse.Handler
	feeds      []feed            // one for each Redis
	stream     *redis.StreamFeed // the one feed, if it is a stream
	commands   *redis.Commands   // to the first of them

	public, admin   *http.Server
	publicL, adminL net.Listener
	certificate     *certificate // nil: no TLS
	adminToken      atomic.Value // a string; "": there is none
	health          health
	idleMu          sync.Mutex
	idleClosed      bool          // guarded by idleMu: the public server closes connections without a stream
	stopped         chan struct{} // closed right before the listeners are
}

// New builds the app and opens its listeners, so that a taken port is known
// before anything runs. The config must have passed Check.
func New(cfg Config, parts Parts) (*App, error) {
	a := &App{cfg: cfg, parts: parts, log: parts.Logger, stopped: make(chan struct{})}
	a.health.feeds = a.FeedStats
	streams, connections := DescriptorBudget()
	a.limits = limitsOf(&cfg, streams)
	a.crowd = sse.NewCrowd(connections)
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
		Crowd:        a.crowd,
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
	if err := a.listen(); err != nil {
		return nil, err
	}
	return a, nil
}

// listen opens both listeners and builds the servers for them.
func (a *App) listen() (err error) {
	var secret string
	if a.cfg.AdminTokenFile != "" {
		if secret, err = flags.ReadSecret(a.cfg.AdminTokenFile); err != nil {
			return err
		}
	}
	a.adminToken.Store(secret)
	a.publicL, err = sse.Listen(context.Background(), a.cfg.Listen, a.cfg.SendBuffer.T, a.cfg.WriteTimeout.T)
	if err != nil {
		return ListenError("listen", a.cfg.Listen, err)
	}
	// An operator who vanishes is to be noticed, too: his streams have few places.
	a.adminL, err = sse.Listen(context.Background(), a.cfg.AdminListen, a.cfg.SendBuffer.T, a.cfg.WriteTimeout.T)
	if err != nil {
		a.publicL.Close()
		return ListenError("admin-listen", a.cfg.AdminListen, err)
	}

	public := admin.NewEcho()
	public.Use(a.streams.CORS)
	public.Any(a.cfg.Path, a.streams.Echo)
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

	a.public, a.admin = a.newServer(closeHTTP1(public)), a.newServer(private)
	a.public.Protocols = new(http.Protocols)
	a.public.Protocols.SetHTTP1(true)
	a.public.ConnContext = sse.ConnContext
	a.public.HTTP2 = a.http2Config()
	a.public.IdleTimeout = publicIdle
	if a.cfg.TLSCert != "" {
		err = a.speakTLS()
	} else {
		err = a.speakPlain(public)
	}
	if err != nil {
		a.publicL.Close()
		a.adminL.Close()
		return err
	}
	a.watchIdle()
	return nil
}

// publicIdle is how long an HTTP/2 connection stays open after the end of its last stream, unless the hub is draining
// or short of descriptors: long enough for a browser that reconnects after --retry, which is spared a handshake.
const publicIdle = 5 * time.Second

// watchIdle lets the public server close HTTP/2 connections as soon as their last stream has ended while the hub is
// draining, because the next one should reach another hub, or while descriptors are short. net/http
// reports a connection as idle before it decides whether to send GOAWAY.
func (a *App) watchIdle() {
	next := a.public.ConnState
	a.public.ConnState = func(conn net.Conn, state http.ConnState) {
		if state == http.StateIdle {
			a.closeIdle(a.health.draining.Load() || a.crowd.IsShort())
		}
		if next != nil {
			next(conn, state)
		}
	}
}

func (a *App) closeIdle(yes bool) {
	a.idleMu.Lock()
	defer a.idleMu.Unlock()
	if a.idleClosed != yes {
		a.idleClosed = yes
		a.public.SetKeepAlivesEnabled(!yes)
	}
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

// closeHTTP1 closes HTTP/1 connections after their response: a client that was rejected
// would keep its connection until the idle timeout, and at a full hub these used up the
// descriptors that are reserved for rejections.
//
// http.Server.SetKeepAlivesEnabled does not stop at HTTP/1: it sends GOAWAY when the last
// stream of an HTTP/2 connection ends. A server sends one GOAWAY per connection, so a
// protocol error of the peer after that was not reported to it, and the next page needed
// another connection.
func closeHTTP1(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// speakPlain lets the public server speak HTTP/1.1 and HTTP/2 in clear.
func (a *App) speakPlain(handler http.Handler) error {
	a.public.Protocols.SetUnencryptedHTTP2(true)
	front, err := a.streams.Front(a.publicL, a.cfg.Path, handler)
	if err != nil {
		return ListenError("listen", a.cfg.Listen, err)
	}
	a.publicL = a.crowd.Attend(a.public, front)
	return nil
}

// speakTLS lets it speak both over TLS, and nothing in clear. A front, which reads
// requests as they come from the socket, has no use there. A handshake has as long as
// the head of a request.
func (a *App) speakTLS() error {
	var err error
	if a.certificate, err = newCertificate(a.cfg.TLSCert, a.cfg.TLSKey, a.log); err != nil {
		return err
	}
	a.public.Protocols.SetHTTP2(true)
	a.public.TLSConfig = &tls.Config{GetCertificate: a.certificate.get, MinVersion: tls.VersionTLS12, CipherSuites: tls12Suites}
	a.publicL = a.crowd.Attend(a.public, a.publicL)
	return nil
}

// tls12Suites are those of TLS 1.2 that encrypt with authentication (AEAD). RFC 9113,
// appendix A, prohibits the others for HTTP/2. TLS 1.3 has no others.
var tls12Suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// Scheme is that of the stream's URL.
func (c *Config) Scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

// http2Config bounds what one HTTP/2 connection can make the hub ask and hold.
func (a *App) http2Config() *http.HTTP2Config {
	return &http.HTTP2Config{
		// A browser shares a connection between its tabs, far fewer; a proxy carries many
		// users on one, and opens another when it is full. Go's own number, which may change:
		// so many handlers run at a time, however fast their streams are reset (CVE-2023-44487).
		MaxConcurrentStreams: 250,
		// The least there is. A frame's buffer is made when its length is read, and kept: Go's
		// 1 MiB would be had for nine bytes a connection.
		MaxReadFrameSize: 16 << 10,
		// Nobody reads the body of a request, which is kept for as long as its stream is open.
		MaxReceiveBufferPerConnection: 64 << 10,
		MaxReceiveBufferPerStream:     16 << 10,
		// Streams share the connection: their own deadlines cannot end a write that waits
		// for the connection itself.
		WriteByteTimeout: a.cfg.WriteTimeout.T,
	}
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

// newServer has no WriteTimeout: it would end every stream.
func (a *App) newServer(h http.Handler) *http.Server {
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
func (a *App) Servers() (public, admin *http.Server) { return a.public, a.admin }

// Hub is where the streams of the app are registered.
func (a *App) Hub() *hub.Hub { return a.hub }

// StreamStats returns the counts of the public listener's streams.
func (a *App) StreamStats() sse.Stats { return a.streams.Stats() }

// PublicAddr is where the public listener listens.
func (a *App) PublicAddr() string { return a.publicL.Addr().String() }

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
	serve := func(s *http.Server, l net.Listener) {
		running.Go(func() {
			serve := s.Serve
			if s.TLSConfig != nil {
				serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
			}
			if err := serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- err
			}
		})
	}
	serve(a.public, a.publicL)
	serve(a.admin, a.adminL)
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
	a.closeIdle(true)
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
	for _, s := range []*http.Server{a.public, a.admin} {
		// What is still being answered gets a moment.
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
		cancel()
	}
	a.log.Info("stopped")
}
