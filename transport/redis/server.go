package redis

import (
	"time"

	"github.com/redis/go-redis/v9/logging"

	"usercast/transport/redis/internal/topology"
)

// Server is the address of one Redis, and how to connect to it: a primary at a fixed address, a
// primary that Sentinels name, or a cluster. Feeds and Commands may share one. Create it with
// ParseServer. Safe for concurrent use.
type Server topology.Server

// ServerOptions configures a Server in addition to its URL. A zero value means the default.
type ServerOptions struct {
	// Password takes precedence over the URL's. A URL can be seen in process lists; a file cannot.
	Password string
	// SentinelPassword is the password of the Sentinels. Without it, they need the password of Redis or
	// none; with sentinel_tls=false, none.
	SentinelPassword string
	// TLSCAFile is a PEM file of the certificate authorities to trust instead of the system's.
	TLSCAFile string
	// TLSCertFile and TLSKeyFile are PEM files of a client certificate and its key, for Redis and for
	// Sentinels. New connections read these files again when they have changed. All require a
	// URL with TLS.
	TLSCertFile, TLSKeyFile string
	// DialTimeout is the timeout for a TCP connection. Default 2 s: long enough for one lost SYN,
	// short enough to reconnect within 2 s to a host that was down.
	DialTimeout time.Duration
	// AnswerTimeout is the timeout for everything else: TLS handshake, authentication,
	// confirmation of a subscription, PING, PUBLISH. Default 3 s.
	AnswerTimeout time.Duration
}

// ParseServer reads the URLs
//
//	redis://[user:password@]host[:port][/db]
//	rediss://[user:password@]host[:port][/db][?skip_verify=true]
//	unix://[user:password@]/path/to/socket[?db=n]
//	redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/db][?sentinel_user=user]
//	redis+cluster://[user:password@]host[:port][,host[:port]…]
//
// of one primary (rediss with TLS), of the Sentinels that monitor the primary called name (default
// port 26379), and of some nodes of a cluster.
//
// With rediss+sentinel and rediss+cluster, all connections use TLS, also those to Sentinels, unless
// sentinel_tls=false is set. Certificates are verified for the host name in the URL, or for the
// address that the Sentinels or the cluster announce; if a cluster announces only IP addresses, a host in
// the URL suffices. skip_verify=true disables that. The parameter sentinel_password is an alternative to
// SentinelPassword.
//
// The database number (default 0) applies to the key of a stream. Channels do not belong to a
// database, so it does not affect pub/sub. A cluster has only database 0.
//
// An error is one line. It does not quote the URL: any part of a URL that cannot be parsed may
// belong to the password.
func ParseServer(rawURL string, opts ServerOptions) (*Server, error) {
	s, err := topology.Parse(rawURL, topology.Options(opts))
	return (*Server)(s), err
}

func (s *Server) topology() *topology.Server { return (*topology.Server)(s) }

// Name is the value of the label redis in metrics and logs. It never changes. It is the host:port or
// the path of the socket. With Sentinels, it is the host:port of the first one and the primary's
// name, as in "10.0.0.7:26379/mymaster". In a cluster, it is the host:port of the first node in
// the URL.
func (s *Server) Name() string { return s.topology().Name() }

// Insecure reports whether TLS is used without verifying the certificate
// (skip_verify=true).
func (s *Server) Insecure() bool { return s.topology().Insecure() }

// SetPassword sets the password for new connections, after it was changed in Redis. Open connections
// stay authenticated.
func (s *Server) SetPassword(password string) { s.topology().SetPassword(password) }

// SetSentinelPassword is SetPassword for Sentinels. It ignores other servers.
func (s *Server) SetSentinelPassword(password string) { s.topology().SetSentinelPassword(password) }

// ReloadTLS reads the TLS files, and reports whether one has changed. A file that is invalid keeps its
// previous value, and is an error. New connections use the result; open ones are not affected.
func (s *Server) ReloadTLS() (changed bool, err error) { return s.topology().ReloadTLS() }

// DisableClientLog turns off the log of go-redis, which writes a line to stderr for each failed
// attempt. The feeds log the same errors once. The log is global: it is off for all go-redis clients
// of the process until the program calls goredis.SetLogger.
func DisableClientLog() { logging.Disable() }
