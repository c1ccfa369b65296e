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

// ServerOptions is what a Server has in addition to its URL. A zero value means the default.
type ServerOptions struct {
	// Password takes precedence over the URL's. A URL can be seen in process lists; a file cannot.
	Password string
	// TLSCAFile is a PEM file of the authorities to trust instead of the
	// system's. With a URL that is not rediss:// it is an error.
	TLSCAFile string
	// DialTimeout bounds making a TCP connection. Default 2 s: long enough for
	// one lost SYN, short enough to reconnect within 2 s to a host that was down.
	DialTimeout time.Duration
	// AnswerTimeout bounds everything else: TLS handshake, authentication,
	// confirmation of a subscription, PING, PUBLISH. Default 3 s.
	AnswerTimeout time.Duration
}

// ParseServer reads the URLs
//
//	redis://[user:password@]host[:port][/db]
//	rediss://[user:password@]host[:port][/db][?skip_verify=true]
//	unix://[user:password@]/path/to/socket[?db=n]
//	redis+sentinel://[user:password@]host[:port][,host[:port]…]/name[/db]
//	redis+cluster://[user:password@]host[:port][,host[:port]…]
//
// of one primary (rediss with TLS), of the Sentinels that know where the primary
// called name is (port 26379), and of some nodes of a cluster.
//
// The database number (default 0) applies to the key of a stream. Channels do not belong to a
// database, so it has no effect on pub/sub. A cluster has only database 0.
//
// An error is one line. It contains nothing of the URL, because any part of a URL that cannot be
// parsed may be a part of the password.
func ParseServer(rawURL string, opts ServerOptions) (*Server, error) {
	s, err := topology.Parse(rawURL, topology.Options(opts))
	return (*Server)(s), err
}

func (s *Server) topology() *topology.Server { return (*topology.Server)(s) }

// Name is the value of the label redis in metrics and logs. It never changes:
// the host:port, or the socket's path; with Sentinels the first one's host:port and
// the primary's name, as in "10.0.0.7:26379/mymaster"; of a cluster the host:port
// of the node that is named first.
func (s *Server) Name() string { return s.topology().Name() }

// Insecure reports whether TLS is used without verifying the certificate
// (skip_verify=true), which deserves a warning.
func (s *Server) Insecure() bool { return s.topology().Insecure() }

// SetPassword is for a password that was changed in Redis: it is used for new
// connections. Connections that are open stay, as Redis keeps them.
func (s *Server) SetPassword(password string) { s.topology().SetPassword(password) }

// DisableClientLog turns off the log of go-redis, which writes failed dials, pool trouble and the
// like to stderr, once per attempt. All that matters of it is also an error, and logged once by a
// feed. The log belongs to the process: it is off for all clients of go-redis, until the program
// calls goredis.SetLogger.
func DisableClientLog() { logging.Disable() }
