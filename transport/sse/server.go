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

// ServerConfig configures a Server. Only Address and Streams are required.
type ServerConfig struct {
	Address string       // to listen on, as for net.Listen("tcp")
	Streams *Handler     // must not belong to another Server
	Path    string       // of the streams, without a query; default "/events"
	Handler http.Handler // answers all requests; must pass those for Path to Streams. Default: Streams at Path, 404 elsewhere

	SendBuffer int         // of each connection, in bytes; default DefaultSendBuffer. A stalled reader costs twice that
	MaxConns   int         // maximum number of connections, including streams; more receive "busy"; default hub.NoLimit
	TLS        *tls.Config // default: HTTP/1.1 and HTTP/2 without TLS. It needs certificates; versions and cipher suites have safe defaults
	ErrorLog   *log.Logger // of net/http; default: that of package log
}

// A Server serves streams, and the other requests of its program, on one public address over
// HTTP/1.1 and HTTP/2. It sets what streams need and must not be changed: socket options,
// deadlines, the limit of connections, and the parameters of HTTP/2. On Linux it answers
// simple requests for a stream without net/http.
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

// NewServer opens the listener; the kernel queues connections until Serve. The error is that of
// the listener, or names what is wrong with cfg.
func NewServer(ctx context.Context, cfg ServerConfig) (*Server, error) {
	if cfg.Streams == nil {
		return nil, errors.New("sse: ServerConfig.Streams is required")
	}
	if cfg.SendBuffer <= 0 {
		cfg.SendBuffer = DefaultSendBuffer
	}
	l, err := Listen(ctx, cfg.Address, cfg.SendBuffer, cfg.Streams.cfg.WriteTimeout)
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

// newServer wraps l. The order matters: the fast path must see connections first, and the
// limit must see all others.
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
	if tcp, ok := l.(tcpListener); ok && cfg.TLS == nil && !cfg.Streams.cfg.Portable {
		var err error
		if s.listener, err = cfg.Streams.newFastListener(tcp, cfg.Path, cfg.Handler, &s.settings); err != nil {
			return nil, err
		}
	}
	if s.settings.limiter != nil {
		s.listener = newLimitListener(s.listener, &s.settings)
	}
	return s, nil
}

// newHTTPServer has no WriteTimeout: it would end every stream.
func newHTTPServer(cfg ServerConfig) *http.Server {
	s := &http.Server{
		Handler: closeHTTP1(cfg.Handler),
		// A request that dribbles in, or a body that never comes, holds a descriptor.
		// Streams lift the second: they read only to notice that the peer disconnects. A TLS
		// handshake has as long as the head of a request.
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second,
		// How long an HTTP/2 connection stays open after the end of its last stream, unless
		// see connState: long enough for a browser that reconnects, which saves a handshake.
		IdleTimeout:    5 * time.Second,
		MaxHeaderBytes: 64 << 10, // room for large cookies, not for header bombs
		Protocols:      new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			// A browser shares a connection between its tabs, far fewer; a proxy carries many
			// users on one, and opens another when it is full. Go's own number, which may change:
			// so many handlers run at a time, however fast their streams are reset (CVE-2023-44487).
			MaxConcurrentStreams: 250,
			// The minimum. A frame's buffer is allocated when its length is read, and kept: Go's
			// 1 MiB would cost a peer nine bytes per connection.
			MaxReadFrameSize: 16 << 10,
			// The bodies of requests are not read, and kept for as long as their stream is open.
			MaxReceiveBufferPerConnection: 64 << 10,
			MaxReceiveBufferPerStream:     16 << 10,
			// Streams share the connection: their own deadlines cannot end a write that waits
			// for the connection itself.
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

// tls12Suites are those of TLS 1.2 that encrypt with authentication (AEAD). RFC 9113,
// appendix A, prohibits the others for HTTP/2. TLS 1.3 has no others.
var tls12Suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
}

// closeHTTP1 closes HTTP/1 connections after their response: a client that was rejected
// would keep its connection until the idle timeout, and at a full hub these would use up the
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

// Addr returns the address of the listener.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// HTTP returns the server of net/http, whose timeouts and ErrorLog may be changed before Serve,
// and nothing else.
func (s *Server) HTTP() *http.Server { return s.http }

// Serve serves until Shutdown or Close, after which it returns nil. Another error is that of
// the listener.
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

// Drain closes HTTP/2 connections as soon as they have no stream: the next one should
// reach another server. It ends nothing that is open: see hub.Hub.Finish.
func (s *Server) Drain() {
	s.draining.Store(true)
	s.closeIdle(true)
}

// connState closes HTTP/2 connections as soon as their last stream has ended while the server
// is draining, or while descriptors are short. net/http reports a connection as idle before it
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

// Shutdown waits for the streams, also past the end of ctx: the hub must have ended them (hub.Hub.Finish),
// and then they close within the write timeout. It accepts no more connections, and waits until all
// other requests are answered or ctx is done. Then it closes everything, and returns the error of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.streams.Wait()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	return err
}

// Close closes the listener and all connections except the streams that were taken over from
// net/http.
func (s *Server) Close() error {
	err := s.http.Close()
	if closed := s.listener.Close(); !errors.Is(closed, net.ErrClosed) { // Serve was not called
		err = errors.Join(err, closed)
	}
	return err
}
