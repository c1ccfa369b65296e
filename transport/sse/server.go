package sse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ServerConfig configures a Server. Only Streams and either Address or Listener are required.
type ServerConfig struct {
	Address  string       // listening address: host:port, or unix:PATH or unix:PATH?mode=660 for a Unix socket
	Listener net.Listener // a TCP or Unix listener that is used instead of Address, such as one of systemd; the Server then owns it
	Streams  *Handler     // must not belong to another Server
	Path     string       // path of the streams, without a query; default "/events"
	Handler  http.Handler // answers all requests; must pass those for Path to Streams. Default: Streams at Path, 404 elsewhere

	SendBuffer int         // send buffer of each connection in bytes; default DefaultSendBuffer. A stalled reader costs twice that
	MaxConns   int         // maximum number of connections, including streams; further ones receive "busy"; default hub.NoLimit
	TLS        *tls.Config // must contain certificates; versions and cipher suites have safe defaults. Default: HTTP/1.1 and HTTP/2 without TLS
	ErrorLog   *log.Logger // for errors of net/http; default: that of package log
}

// A Server serves streams, and the other requests of its program, on one public address over
// HTTP/1.1 and HTTP/2. It sets the socket options, deadlines, connection limit and HTTP/2
// parameters that streams depend on. On Linux it answers simple requests for streams without
// net/http.
//
// Methods are safe for concurrent use.
type Server struct {
	streams  *Handler
	settings connSettings
	http     *http.Server
	listener net.Listener

	draining atomic.Bool
	mu       sync.Mutex
	noIdle   bool // guarded by mu: connections without a stream are closed
}

// NewServer opens the listener; the kernel queues connections until Serve. It returns an error if
// the listener cannot be opened or cfg is invalid.
func NewServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if cfg.Streams == nil {
		return nil, errors.New("sse: ServerConfig.Streams is required")
	}
	if cfg.SendBuffer <= 0 {
		cfg.SendBuffer = DefaultSendBuffer
	}
	var l net.Listener
	var err error
	if cfg.Listener != nil {
		l, err = listenOn(cfg.Listener, cfg.SendBuffer, cfg.Streams.cfg.WriteTimeout)
	} else {
		l, err = Listen(ctx, cfg.Address, cfg.SendBuffer, cfg.Streams.cfg.WriteTimeout)
	}
	if err != nil {
		return nil, err
	}
	s, err := newServer(cfg, l)
	if err != nil {
		l.Close()
		return nil, err
	}
	return s, nil
}

// newServer wraps l. The order matters: the fast path must accept connections first, and the
// limit must apply to all others.
func newServer(cfg ServerConfig, l net.Listener) (*Server, error) {
	if cfg.Path == "" {
		cfg.Path = "/events"
	}
	if !strings.HasPrefix(cfg.Path, "/") || cfg.Handler == nil && strings.ContainsAny(cfg.Path, "%{} ") {
		return nil, fmt.Errorf("sse: ServerConfig.Path %q must start with / and must not contain %%, braces or spaces", cfg.Path)
	}
	if cfg.Handler == nil {
		mux := http.NewServeMux()
		mux.Handle(cfg.Path, cfg.Streams)
		cfg.Handler = mux
	}
	s := &Server{streams: cfg.Streams, listener: l, http: newHTTPServer(cfg)}
	s.settings = connSettings{writeTimeout: cfg.Streams.cfg.WriteTimeout, limiter: newConnLimiter(cfg.MaxConns)}
	s.http.ConnContext = connContext
	s.http.ConnState = s.connState
	// Over TLS, requests cannot be read from the socket.
	if sockets, ok := l.(socketListener); ok && cfg.TLS == nil && !cfg.Streams.cfg.Portable {
		var err error
		if s.listener, err = cfg.Streams.newFastListener(sockets, cfg.Path, cfg.Handler, &s.settings); err != nil {
			return nil, err
		}
	}
	if s.settings.limiter != nil {
		s.listener = newLimitListener(s.listener, &s.settings)
	}
	return s, nil
}

// newHTTPServer does not set WriteTimeout, which would end every stream.
func newHTTPServer(cfg ServerConfig) *http.Server {
	s := &http.Server{
		Handler: closeHTTP1(cfg.Handler),
		// A request that is received too slowly would hold a file descriptor. Streams remove
		// ReadTimeout, because they read only to notice that the peer disconnects. A TLS
		// handshake must finish within ReadHeaderTimeout.
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second,
		// How long an HTTP/2 connection stays open after the end of its last stream: long
		// enough for a browser that reconnects, which saves a handshake. See also connState.
		IdleTimeout:    5 * time.Second,
		MaxHeaderBytes: 64 << 10, // enough for large cookies
		Protocols:      new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			// Far more than a browser needs for its tabs. A proxy carries many users on one
			// connection and opens another when it is full. This is Go's default, set explicitly because
			// it also limits the running handlers if a peer resets streams quickly (CVE-2023-44487).
			MaxConcurrentStreams: 250,
			// The minimum. The buffer for a frame is allocated as soon as its length is read, and
			// kept: with Go's default of 1 MiB, nine bytes from a peer would allocate that much.
			MaxReadFrameSize: 16 << 10,
			// Request bodies are not read, and stay buffered while their stream is open.
			MaxReceiveBufferPerConnection: 64 << 10,
			MaxReceiveBufferPerStream:     16 << 10,
			// Streams share the connection, so the deadline of a stream cannot end a write that
			// waits for the connection itself.
			WriteByteTimeout: cfg.Streams.cfg.WriteTimeout,
		},
		ErrorLog: cfg.ErrorLog,
	}
	s.Protocols.SetHTTP1(true)
	if cfg.TLS == nil {
		s.Protocols.SetUnencryptedHTTP2(true)
		return s
	}
	s.Protocols.SetHTTP2(true)
	s.TLSConfig = cfg.TLS.Clone()
	if s.TLSConfig.MinVersion == 0 {
		s.TLSConfig.MinVersion = tls.VersionTLS12
	}
	if s.TLSConfig.CipherSuites == nil {
		s.TLSConfig.CipherSuites = tls12Suites
	}
	return s
}

// tls12Suites are the AEAD cipher suites of TLS 1.2. RFC 9113, appendix A, prohibits the others for
// HTTP/2. All suites of TLS 1.3 are AEAD.
var tls12Suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// closeHTTP1 closes HTTP/1 connections after their response. A rejected client would otherwise
// keep its connection until the idle timeout, and at a full hub such connections would use up the
// file descriptors that are reserved for rejections.
//
// http.Server.SetKeepAlivesEnabled is not an alternative, because it also affects HTTP/2: it sends
// GOAWAY when the last stream of a connection ends. The next page then needs another connection. A
// server sends only one GOAWAY per connection, so later protocol errors would not be reported.
func closeHTTP1(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 1 {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// Addr returns the address of the listener.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// HTTP returns the server of net/http. Only its timeouts and ErrorLog may be changed, before Serve.
func (s *Server) HTTP() *http.Server { return s.http }

// Serve serves until Shutdown or Close, and then returns nil. It returns an error if the listener
// fails.
func (s *Server) Serve() error {
	var err error
	if s.http.TLSConfig != nil {
		err = s.http.ServeTLS(s.listener, "", "")
	} else {
		err = s.http.Serve(s.listener)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Drain closes HTTP/2 connections as soon as their last stream ends, so that the next stream
// reaches another server. It does not end streams: see hub.Hub.Finish.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.closeIdle(true)
}

// connState closes HTTP/2 connections as soon as their last stream has ended while the server
// is draining, or while few slots are free. net/http reports a connection as idle before it
// decides whether to send GOAWAY.
func (s *Server) connState(_ net.Conn, state http.ConnState) {
	if state == http.StateIdle {
		s.closeIdle(s.draining.Load() || s.settings.limiter.isShort())
	}
}

func (s *Server) closeIdle(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.noIdle != yes {
		s.noIdle = yes
		s.http.SetKeepAlivesEnabled(!yes)
	}
}

// Shutdown waits for all streams, even if ctx ends. Call hub.Hub.Finish before it: streams then close
// within the write timeout. After that, Shutdown stops accepting connections and waits until all
// other requests are answered. If ctx ends first, it closes everything and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.streams.Wait()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	return err
}

// Close closes the listener and all connections except streams that no longer belong to net/http.
func (s *Server) Close() error {
	err := s.http.Close()
	if closed := s.listener.Close(); !errors.Is(closed, net.ErrClosed) { // Serve was not called
		err = errors.Join(err, closed)
	}
	return err
}
