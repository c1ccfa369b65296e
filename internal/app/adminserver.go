package app

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"usercast/internal/flags"
	"usercast/metrics"
	"usercast/transport/admin"
	"usercast/transport/sse"
)

// An adminServer serves the console, metrics, health and the API.
type adminServer struct {
	http     *http.Server
	listener net.Listener
	token    secret        // of --admin-token-file
	apiToken secret        // of --api-token-file
	stopped  chan struct{} // closed by endStreams
}

// A secret can be replaced at any time. "" means that it is not configured.
type secret struct{ text atomic.Pointer[string] }

func (s *secret) get() string     { return *s.text.Load() }
func (s *secret) set(text string) { s.text.Store(&text) }

// read sets the token in a file, or "" if its name is empty.
func (s *secret) read(file string) (err error) {
	text := ""
	if file != "" {
		text, err = flags.ReadToken(file)
	}
	s.set(text)
	return err
}

// newAdminServer opens the listener.
func newAdminServer(cfg *Config, c console, api api, online admin.Presence) (*adminServer, error) {
	s := &adminServer{stopped: make(chan struct{})}
	if err := errors.Join(s.token.read(cfg.AdminTokenFile), s.apiToken.read(cfg.APITokenFile)); err != nil {
		return nil, err
	}
	s.checkTokens(c.log)
	// The write timeout also detects admin clients that drop off without a FIN. Their streams occupy few slots.
	var err error
	if s.listener, err = sse.Listen(context.Background(), cfg.AdminListen, cfg.SendBuffer.T, cfg.WriteTimeout.T); err != nil {
		return nil, ListenError("admin-listen", cfg.AdminListen, err)
	}
	e, tokens := admin.NewEcho(), admin.Tokens{Admin: s.token.get, API: s.apiToken.get}
	admin.Mount(e, c.health.status, promhttp.HandlerFor(metrics.NewRegistry(c.sources), promhttp.HandlerOpts{}), tokens)
	admin.MountAPI(e, api.admin(), tokens)
	admin.MountOnline(e, online, tokens)
	admin.MountConsole(e, c.page(s.stopped), tokens)
	// WriteTimeout is not set, because it would end the streams of the console.
	s.http = &http.Server{
		Handler: e,
		// A request whose header or body arrives slowly occupies a file descriptor.
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    64 << 10, // room for large cookies
		ErrorLog:          log.New(serverLog{c.log}, "", 0),
	}
	return s, nil
}

// serve returns nil after shutdown.
func (s *adminServer) serve() error {
	if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// checkTokens logs that apps have the token of the administrator.
func (s *adminServer) checkTokens(log *slog.Logger) {
	if token := s.token.get(); token != "" && token == s.apiToken.get() {
		log.Warn("api token is the admin token, apps can use the whole admin listener",
			slog.String("hint", "put another token into the file of --api-token-file"))
	}
}

// endStreams ends the streams of the console. Otherwise shutdown would wait for them.
func (s *adminServer) endStreams() { close(s.stopped) }

// shutdown waits for pending requests until ctx is done, then closes all connections.
func (s *adminServer) shutdown(ctx context.Context) error {
	defer s.http.Close()
	return s.http.Shutdown(ctx)
}
