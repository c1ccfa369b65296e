package topology

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"usercast/transport/redis/internal/acl"
)

// NewClient makes a go-redis client with one connection, which connects when it is first used.
// Wrap gets the connection as soon as it is made. The caller's deadlines count.
func (s *Server) NewClient(to Target, wrap func(net.Conn) net.Conn) *goredis.Client {
	opt := s.options()
	opt.ContextTimeoutEnabled = true
	opt.Dialer = func(ctx context.Context, _, _ string) (net.Conn, error) {
		far, err := s.locator.dial(ctx, to)
		if err != nil {
			return nil, err
		}
		return wrap(far.conn), nil
	}
	opt.OnConnect = func(ctx context.Context, cn *goredis.Conn) error {
		if _, _, err := s.locator.admit(ctx, cn, to); err != nil {
			return err
		}
		if err := s.selectDatabase(ctx, cn, to); err != nil {
			return err
		}
		// The feed reports the missing right; a PUBLISH does without.
		return acl.Optional(cn.ClientSetName(ctx, ClientName).Err(), acl.PermissionName, func(acl.Permission, error) {})
	}
	client := goredis.NewClient(opt)
	client.AddHook(catchPanics{})
	return client
}

// options are what all connections have in common.
func (s *Server) options() *goredis.Options {
	return &goredis.Options{
		Network: s.network,
		Addr:    s.addr,
		// Called at each authentication: a client lives longer than a password.
		CredentialsProvider: func() (user, password string) { return s.login.user, s.login.password() },
		// RESP3 pub/sub has lost messages and hung in go-redis (#3839, #3935).
		Protocol: 2,
		// No CLIENT SETINFO and no CLIENT MAINT_NOTIFICATIONS: fewer rights needed.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		// Trying again is for callers, who know what it may repeat.
		MaxRetries:    -1,
		DialerRetries: 1,
		// One connection is all that a client is used for. The pool's size is 2
		// because go-redis starts a goroutine that re-dials forever, and outlives
		// Close by a second, when as many dials have failed as the pool is big;
		// our clients are closed after the first.
		PoolSize:         2,
		PipelinePoolSize: -1,
		// Includes the TLS handshake, and finding the node to connect to.
		DialTimeout:  time.Duration(1+s.Hosts()) * (s.dialTimeout + s.answerTimeout),
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

// A Target says which node to connect to where there are several.
type Target struct {
	Key string // in a cluster, the node that owns it; "": any
	Not string // in a cluster, preferably not the node at this address

	Addr   string // in a cluster, the node that another one named for the key; "": not known
	Asking bool   // it does so for as long as the key's slot is moving: see ASK
}

// socket is a fresh connection. Raw is what lies under conn: closing it never
// blocks, while tls.Conn.Close may wait to say goodbye.
type socket struct {
	conn, raw net.Conn
	addr      string // what was dialed
}

// KeysDiffer reports whether a connection for a key is another one than for channels.
func (s *Server) KeysDiffer() bool { return s.cluster != nil || s.database != 0 }

// A locator finds the node to connect to. Safe for concurrent use.
type locator interface {
	// dial makes one connection. Each time, names are resolved and Sentinels or the cluster
	// queried: that is how a failover is followed.
	dial(ctx context.Context, to Target) (socket, error)
	// admit checks, after authentication, that the node is one to use. Where it is not allowed to
	// ask, the node is used, and the refusal is returned in denied.
	admit(ctx context.Context, cn *goredis.Conn, to Target) (state string, denied, err error)
	// hosts is how many others may be queried before a connection is made.
	hosts() int
}

// fixed is the locator of a server at one address.
type fixed struct{ server *Server }

func (f fixed) dial(ctx context.Context, _ Target) (socket, error) {
	return f.server.dialAddr(ctx, f.server.addr)
}
func (fixed) admit(context.Context, *goredis.Conn, Target) (state string, denied, err error) { return }
func (fixed) hosts() int                                                                     { return 0 }

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

// selectDatabase makes a connection for a key use the database that the key is in.
func (s *Server) selectDatabase(ctx context.Context, cn *goredis.Conn, to Target) error {
	if s.database == 0 || to.Key == "" {
		return nil
	}
	err := cn.Select(ctx, s.database).Err()
	if err == nil || !acl.IsReply(err) {
		return err
	}
	f := s.Denied(err, "select database "+strconv.Itoa(s.database), "+select")
	if goredis.HasErrorPrefix(err, "DB index is out of range") {
		f = &Fault{Reason: "database", Problem: "redis does not have database " + strconv.Itoa(s.database), Advice: "correct the database in the Redis URL, or raise databases in the redis configuration"}
	}
	f.Err = nil // go-redis would return it in place of the fault
	return f
}

// Hosts is how many others may be queried before a connection is made.
func (s *Server) Hosts() int { return s.locator.hosts() }

// Ask runs one question on a connection of its own, which is closed before Ask
// returns.
func (s *Server) Ask(ctx context.Context, to Target, question func(context.Context, *goredis.Conn) error) error {
	return s.NewConn(ctx, to, question).Use()
}

// Redirection reads the reply of a node that does not have a Key: MOVED names the owner of its
// slot, ASK the node to which the slot is moving. From is the address of the node that replied,
// which is meant where no host is named; "": not known.
func (s *Server) Redirection(err error, key, from string) (to Target, ok bool) {
	if s.cluster == nil || !goredis.HasErrorPrefix(err, "MOVED ") && !goredis.HasErrorPrefix(err, "ASK ") {
		return Target{}, false
	}
	var reply goredis.Error
	errors.As(err, &reply)
	words := strings.Fields(reply.Error()) // MOVED or ASK, the slot, the address
	if len(words) != 3 {
		return Target{}, false
	}
	addr := nodeAddr(goredis.ClusterNode{Addr: words[2]}, from)
	return Target{Key: key, Addr: addr, Asking: words[0] == "ASK"}, !strings.HasPrefix(addr, ":")
}

// AskNode runs commands on the node that a redirection named, over a connection of its own.
func (s *Server) AskNode(ctx context.Context, to Target, run func(goredis.Cmdable) error) error {
	client := s.NewClient(to, func(conn net.Conn) net.Conn { return conn })
	defer func() { _ = client.Close() }()
	if !to.Asking {
		return run(client)
	}
	cn := client.Conn()
	defer func() { _ = cn.Close() }()
	if err := cn.Process(ctx, goredis.NewStatusCmd(ctx, "asking")); err != nil {
		return err
	}
	return run(cn)
}

// TrySeedNext makes the next connection to a cluster try a seed first, and returns the one that it
// would have tried. It is for tests.
func (s *Server) TrySeedNext(seed int) (was int) {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	was, s.cluster.next = s.cluster.next, seed
	return was
}

// LocatePrimary asks the next Sentinel for the address of the primary: one after the other, in
// case one of them is cut off. Only with HasSentinels.
func (s *Server) LocatePrimary(ctx context.Context) (addr string, err error) {
	s.sentinels.rotate()
	return s.sentinels.locate(ctx)
}
