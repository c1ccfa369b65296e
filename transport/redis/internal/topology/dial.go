package topology

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"usercast/transport/redis/internal/acl"
)

// NewClient returns a go-redis client with one connection, which connects when it is first used. wrap
// wraps the new connection. The deadlines of contexts apply.
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
		if _, err := s.locator.admit(ctx, cn, to, ""); err != nil {
			return err
		}
		if err := s.selectDatabase(ctx, cn, to); err != nil {
			return err
		}
		// The feed logs the missing permission, which is not needed here.
		return SetName(ctx, cn, func(acl.Permission, error) {})
	}
	client := goredis.NewClient(opt)
	client.AddHook(catchPanics{})
	client.AddHook(rejectSentinels{})
	return client
}

// options returns the options of all connections.
func (s *Server) options() *goredis.Options {
	return &goredis.Options{
		Network: s.network,
		Addr:    s.addr,
		// Called for each authentication, because the password may change during the life of a client.
		CredentialsProvider: func() (user, password string) { return s.login.user, s.login.password() },
		// go-redis has lost messages and hung with pub/sub over RESP3 (#3839, #3935).
		Protocol: 2,
		// No CLIENT SETINFO and no CLIENT MAINT_NOTIFICATIONS: fewer permissions needed.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		// Callers retry, because only they know which commands may be repeated.
		MaxRetries:    -1,
		DialerRetries: 1,
		// A client uses only one connection. The size of the pool is 2 because go-redis starts a
		// goroutine that redials forever when as many dials have failed as the pool has connections.
		// It outlives Close by one second. These clients are closed after the first failure.
		PoolSize:         2,
		PipelinePoolSize: -1,
		// Includes the TLS handshake and the lookup of the node to connect to.
		DialTimeout:  time.Duration(1+s.Hosts()) * (s.dialTimeout + s.answerTimeout),
		ReadTimeout:  s.answerTimeout,
		WriteTimeout: s.answerTimeout,
		// ReadBufferSize keeps its default, because go-redis always allocates 32 KiB for a PubSub. That
		// is one read(2) per about 300 small messages, a few percent of their cost.
	}
}

// A Target selects the node to connect to if there are several.
type Target struct {
	Key string // in a cluster, the node that owns it; "": any
	Not string // in a cluster, preferably not the node at this address

	Prefer string // in a cluster, preferably the primary that owns the slot of this channel

	Addr   string // in a cluster, the target of a redirection for the key; "": not known
	Asking bool   // the redirection was ASK: the key's slot is moving

	lookup bool // in a cluster, any node that can report owners
}

// socket is a new connection. raw is the TCP connection below conn: closing it never blocks, while
// tls.Conn.Close may block to send close_notify.
type socket struct {
	conn, raw net.Conn
	addr      string // the address that was dialed
}

// KeysDiffer reports whether keys need another connection than channels.
func (s *Server) KeysDiffer() bool { return s.cluster != nil || s.database != 0 }

// A locator finds the node to connect to. Safe for concurrent use.
type locator interface {
	// dial makes one connection. To follow a failover, it resolves names and queries Sentinels or the
	// cluster each time.
	dial(ctx context.Context, to Target) (socket, error)
	// admit checks, after authentication, whether the node at an address is suitable. addr may be "".
	admit(ctx context.Context, cn *goredis.Conn, to Target, addr string) (admission, error)
	// hosts returns how many other hosts may be queried before a connection is made.
	hosts() int
}

// An admission is what a node of a cluster reports about the cluster. If a command is not allowed, the node is used,
// and the error reply is in a field.
type admission struct {
	state       string // cluster_state
	denied      error  // CLUSTER INFO is not allowed
	slots       []slotRange
	slotsDenied error // CLUSTER SLOTS is not allowed
}

// fixed is the locator of a server at one address.
type fixed struct{ server *Server }

func (f fixed) dial(ctx context.Context, _ Target) (socket, error) {
	return f.server.dialAddr(ctx, f.server.addr, "")
}
func (fixed) admit(context.Context, *goredis.Conn, Target, string) (a admission, err error) { return }
func (fixed) hosts() int                                                                    { return 0 }

// dialAddr connects to an address. With TLS, the certificate must be for name, or for the host of addr if name is "".
func (s *Server) dialAddr(ctx context.Context, addr, name string) (socket, error) {
	dialer := net.Dialer{Timeout: s.dialTimeout}
	raw, err := dialer.DialContext(ctx, s.network, addr)
	if err != nil {
		return socket{}, err
	}
	if s.tls == nil {
		return socket{raw, raw, addr}, nil
	}
	secure, err := s.tls.secure(ctx, raw, addr, name, s.answerTimeout)
	if err != nil {
		_ = raw.Close()
		return socket{}, err
	}
	return socket{secure, raw, addr}, nil
}

// selectDatabase selects the database of the key, if the connection is for a key.
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
		f = &Fault{Reason: "database", Problem: "Redis does not have database " + strconv.Itoa(s.database), Advice: "correct the database in the Redis URL, or raise databases in the configuration of Redis"}
	}
	f.Err = nil // go-redis would return it in place of the fault
	return f
}

// Hosts returns how many other hosts may be queried before a connection is made.
func (s *Server) Hosts() int { return s.locator.hosts() }

// Ask runs a question on a separate connection, which it closes before it returns.
func (s *Server) Ask(ctx context.Context, to Target, question func(context.Context, *goredis.Conn) error) error {
	return s.NewConn(ctx, to, question).Use()
}

// Redirection parses the error reply of a node that does not have a key. MOVED contains the owner of the
// slot, ASK the node to which the slot is moving. from is the address of the node that replied, used
// for an address without a host; "": not known.
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
	host, port, err := net.SplitHostPort(words[2])
	addr := clusterNode{host: host, port: port}.addr(from)
	return Target{Key: key, Addr: addr, Asking: words[0] == "ASK"}, err == nil && addr != ""
}

// AskNode runs commands on the target of a redirection, over a separate connection.
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

// TrySeedNext sets the seed that the next connection to a cluster tries first, and returns the previous
// one. It is for tests.
func (s *Server) TrySeedNext(seed int) (was int) {
	s.cluster.mu.Lock()
	defer s.cluster.mu.Unlock()
	was, s.cluster.next = s.cluster.next, seed
	return was
}

// LocatePrimary looks up the address of the primary at the next Sentinel. Each call starts with another
// one, because one of them may be partitioned. It requires HasSentinels.
func (s *Server) LocatePrimary(ctx context.Context) (addr string, err error) {
	s.sentinels.rotate()
	return s.sentinels.locate(ctx)
}
