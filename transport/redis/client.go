package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// clientName is what CLIENT LIST shows for every connection of ours.
const clientName = "usercast"

// go-redis prints failed dials, pool trouble and the like to stderr, past slog,
// once per try. All that matters of it comes back as an error too and is said
// once by report.go. The switch is the process's: it silences go-redis for an
// embedding program as well, which can set its own with goredis.SetLogger.
func init() { logging.Disable() }

// options are what all connections have in common.
func (s *Server) options() *goredis.Options {
	return &goredis.Options{
		Network: s.network,
		Addr:    s.addr,
		// Asked at each log-in: a client lives longer than a password.
		CredentialsProvider: func() (user, password string) { return s.user, s.password() },
		// RESP3 pub/sub has lost messages and hung in go-redis (#3839, #3935).
		Protocol: 2,
		// No CLIENT SETINFO and no CLIENT MAINT_NOTIFICATIONS: fewer rights needed.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		// Trying again is for callers, who know what it may repeat.
		MaxRetries:    -1,
		DialerRetries: 1,
		// One connection is all that a client is used for. The pool's size is 2
		// because go-redis starts a goroutine that re-dials for ever, and outlives
		// Close by a second, when as many dials have failed as the pool is big;
		// our clients are closed after the first.
		PoolSize:         2,
		PipelinePoolSize: -1,
		// TLS handshake included, and asking around for the node to connect to.
		DialTimeout:  time.Duration(1+s.hosts()) * (s.dialTimeout + s.answerTimeout),
		ReadTimeout:  s.answerTimeout,
		WriteTimeout: s.answerTimeout,
		// ReadBufferSize is left alone: go-redis gives a PubSub 32 KiB whatever it
		// says. That is one read(2) for some 300 small messages, a few percent of what
		// they cost.
	}
}

// errTLS wraps whatever goes wrong between the TCP connection and the end of
// the TLS handshake.
var errTLS = errors.New("tls handshake")

// target says which node to connect to where there are several.
type target struct {
	key string // in a cluster, the node that owns it; "": any
	not string // in a cluster, rather not the node at this address

	addr   string // in a cluster, the node that another one named for the key; "": not known
	asking bool   // it does so for as long as the key's slot is moving: see ASK
}

// socket is a fresh connection. Raw is what lies under conn: closing it never
// blocks, while tls.Conn.Close may wait to say goodbye.
type socket struct {
	conn, raw net.Conn
	addr      string // what was dialled
}

// keysDiffer reports whether a connection for a key is another one than for channels.
func (s *Server) keysDiffer() bool { return s.cluster != nil || s.database != 0 }

// dial makes one connection. Names are resolved, and Sentinels or the cluster
// asked, anew each time: that is how a fail-over is followed.
func (s *Server) dial(ctx context.Context, to target) (socket, error) {
	switch {
	case s.sentinels != nil:
		return s.dialPrimary(ctx)
	case s.cluster != nil && to.addr != "":
		return s.dialAddr(ctx, to.addr)
	case s.cluster != nil && to.key != "":
		return s.dialOwner(ctx, to.key)
	case s.cluster != nil:
		return s.dialNode(ctx, to.not)
	}
	return s.dialAddr(ctx, s.addr)
}

func (s *Server) dialAddr(ctx context.Context, addr string) (socket, error) {
	dialer := net.Dialer{Timeout: s.dialTimeout}
	raw, err := dialer.DialContext(ctx, s.network, addr)
	if err != nil {
		return socket{}, err
	}
	if s.tls == nil {
		return socket{raw, raw, addr}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.answerTimeout)
	defer cancel()
	secure := tls.Client(raw, s.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return socket{}, fmt.Errorf("%w: %w", errTLS, err)
	}
	return socket{secure, raw, addr}, nil
}

// admit checks, after log-in, that the node is one to use. Where it may not be
// asked it is taken as it is, and the refusal comes back in denied.
func (s *Server) admit(ctx context.Context, cn *goredis.Conn, to target) (state string, denied, err error) {
	switch {
	case s.sentinels != nil:
		return "", nil, s.admitPrimary(ctx, cn)
	case s.cluster != nil && to.key == "":
		return s.admitNode(ctx, cn)
	}
	return "", nil, nil // the owner of a key refuses what it cannot do by itself
}

// selectDatabase makes a connection for a key use the database that the key is in.
func (s *Server) selectDatabase(ctx context.Context, cn *goredis.Conn, to target) error {
	if s.database == 0 || to.key == "" {
		return nil
	}
	err := cn.Select(ctx, s.database).Err()
	if err == nil || !isReply(err) {
		return err
	}
	f := s.denied(err, "select database "+strconv.Itoa(s.database), "+select")
	if goredis.HasErrorPrefix(err, "DB index is out of range") {
		f = &fault{reason: "database", problem: "redis has no database " + strconv.Itoa(s.database), advice: "correct the database in the Redis URL, or raise databases in the configuration of redis"}
	}
	f.err = nil // go-redis would return it in place of the fault
	return f
}

// hosts is how many others may be asked before a connection is made.
func (s *Server) hosts() int {
	switch {
	case s.sentinels != nil:
		return 2 * len(s.sentinels.addrs) // without a password, and with it
	case s.cluster != nil:
		return s.cluster.size()
	}
	return 0
}

// ask runs one question on a connection of its own, which is closed before ask
// returns.
func (s *Server) ask(ctx context.Context, question func(context.Context, *goredis.Conn) error) error {
	return s.newLink(ctx, question).use(ctx)
}

// isReply reports whether err is an error reply: Redis refused a command, and
// the connection lives.
func isReply(err error) bool {
	var reply goredis.Error
	return errors.As(err, &reply)
}
