package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"syscall"

	"usercast/hub"
	"usercast/internal/systemd"
	"usercast/internal/unixsocket"
	"usercast/transport/admin"
	"usercast/transport/sse"
	"usercast/transport/sse/echosse"
)

// newStreams returns the handler of streams. The argument reserve is the number of file descriptors for clients without a
// stream; 0 means no limit.
func newStreams(cfg *Config, parts Parts, h *hub.Hub, reserve int) *sse.Handler {
	return sse.New(sse.Config{
		Hub:            h,
		Authenticate:   parts.Auth.Authenticate,
		TopicSeparator: cfg.TopicSeparator.T,
		MaxGroups:      cmp.Or(cfg.MaxGroups.T, hub.NoLimit),
		Origins:        sse.Origins{Allow: cfg.AllowOrigin, Navigate: parts.Navigate, LoopbackHost: parts.LoopbackHost},
		PingInterval:   cfg.PingInterval.T,
		WriteTimeout:   cfg.WriteTimeout.T,
		Retry:          cfg.Retry.T,
		MaxAge:         cfg.MaxAge.T,
		MaxHeld:        maxHeld(reserve),
		Portable:       cfg.Writer == WriterPortable,
		Logger:         parts.Logger,
	})
}

// maxHeld returns the maximum number of temporary rejections whose end is delayed. It is half the number of file descriptors
// that are reserved for clients without a stream. Without a reserve it returns 0, the default of sse.Config.
func maxHeld(reserve int) int {
	if reserve == 0 {
		return 0
	}
	if reserve /= 2; reserve == 0 {
		return -1
	}
	return reserve
}

// newPublicServer opens the public listener, which accepts at most maxConns connections; 0 means no limit.
func (a *App) newPublicServer(maxConns int) (*sse.Server, error) {
	e := admin.NewEcho()
	e.Use(echosse.CORS(a.streams))
	e.Any(a.cfg.Path, echosse.Handler(a.streams))
	admin.MountHealth(e, a.health.status, false)
	if a.parts.Mount != nil {
		a.parts.Mount(e)
	}
	var inherited net.Listener
	if a.cfg.Listen == systemd.Address {
		var err error
		if inherited, err = systemd.Listener(); err != nil {
			return nil, err
		}
	}
	cfg := sse.ServerConfig{
		Listener: inherited,
		Address:  a.cfg.Listen, Streams: a.streams, Path: a.cfg.Path, Handler: e,
		SendBuffer: a.cfg.SendBuffer.T, MaxConns: maxConns, ErrorLog: log.New(serverLog{a.log}, "", 0),
	}
	if a.certificate != nil {
		cfg.TLS = &tls.Config{GetCertificate: a.certificate.get}
	}
	return sse.NewServer(context.Background(), cfg)
}

// Scheme returns the scheme of the stream's URL.
func (c *Config) Scheme() string {
	if c.TLSCert != "" {
		return "https"
	}
	return "http"
}

// ListenError returns an error with advice for a listener that could not be opened.
func ListenError(flag, address string, err error) error {
	why := err
	ownText := unixsocket.Is(address) || address == systemd.Address // their packages describe the cause
	if errno := syscall.Errno(0); !ownText && errors.As(err, &errno) {
		why = errno
	}
	if !ownText && errors.Is(err, syscall.EADDRINUSE) {
		if flag == "listen" && systemd.PassesSocket() {
			return fmt.Errorf("cannot listen on %s: port already in use; the service manager has opened a socket for this process, so set --listen %s", address, systemd.Address)
		}
		return fmt.Errorf("cannot listen on %s: port already in use; stop the process that uses it, or choose another port with --%s", address, flag)
	}
	return fmt.Errorf("cannot listen on %s (--%s): %w", address, flag, why)
}
