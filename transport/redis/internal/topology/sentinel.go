package topology

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
)

// sentinels look up the address of the primary. They are queried for each connection, one after the
// other until one replies. The address is not cached.
type sentinels struct {
	// Immutable after Parse.
	server    *Server
	addrs     []string    // at least one
	primary   string      // its name
	cleartext bool        // they are not encrypted, although Redis is
	login     credentials // without a password: none, or that of Redis

	// Guarded by mu.
	mu sync.Mutex
	// first is the index of the Sentinel to query first: the one that replied last, as long as the
	// address that it returns is that of a primary.
	first int
	// epoch is the config-epoch of the last accepted reply. Every failover increases it, and a
	// partitioned Sentinel keeps a lower one.
	epoch int64
}

// primaryInfo is the reply of one Sentinel about the primary.
type primaryInfo struct {
	addr  string
	epoch int64
}

// AskEvery is the time between lookups of the primary while a feed is connected to it.
const AskEvery = 2 * time.Second

// Faults of the lookup of the primary.
var (
	faultUnknownPrimary = &Fault{Reason: "sentinel", Problem: "the Sentinels do not know a primary with this name", Advice: "correct the name in the URL; SENTINEL MASTERS lists the names"}
	faultNotPrimary     = &Fault{Reason: "sentinel", Problem: "the server that a Sentinel reports as primary is a replica", Advice: "no action needed, retrying until the failover is complete"}
)

func (s *Server) parseSentinels(u *url.URL, others []string) error {
	addrs, err := parseHosts(u, others, "26379")
	if err != nil {
		return err
	}
	name, db, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if name == "" {
		return errors.New("the master name is missing in the Redis URL; add it after the Sentinels, as in " + u.Scheme + "://host,host/mymaster")
	}
	s.network, s.addr = "tcp", addrs[0]
	s.sentinels = &sentinels{server: s, addrs: addrs, primary: name}
	s.locator = s.sentinels
	return s.setDatabase(db)
}

// dial looks up the primary at the Sentinels, and connects to it.
func (s *sentinels) dial(ctx context.Context, _ Target) (socket, error) {
	addr, err := s.locate(ctx)
	if err != nil {
		return socket{}, err
	}
	far, err := s.server.dialAddr(ctx, addr, "")
	if err != nil {
		s.rotate()
		return socket{}, &announcedError{addr, err}
	}
	return far, nil
}

// locate returns the address of the primary from the first Sentinel whose epoch is not older than the
// last accepted one.
func (s *sentinels) locate(ctx context.Context) (addr string, err error) {
	var (
		first, epoch = s.known()
		stale        []primaryInfo
		refusal      error  // an error reply of a Sentinel
		timeout      error  // the error of a Sentinel that did not reply
		refused      string // the address of the Sentinel of refusal
		silent       string // the address of the Sentinel of timeout
	)
	for i := range s.addrs {
		n := (first + i) % len(s.addrs)
		info, err := s.ask(ctx, s.addrs[n])
		switch {
		case err == nil && info.epoch >= epoch:
			s.accept(n, info.epoch)
			return info.addr, nil
		case err == nil:
			stale = append(stale, info)
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case acl.IsReply(err):
			refusal, refused = err, s.addrs[n]
		default:
			timeout, silent = err, s.addrs[n]
		}
	}
	switch {
	case len(stale) > 0:
		// No Sentinel has a newer epoch: others may be unreachable, or SENTINEL RESET was used.
		best := slices.MaxFunc(stale, func(a, b primaryInfo) int { return cmp.Compare(a.epoch, b.epoch) })
		s.accept(first, best.epoch)
		return best.addr, nil
	case errors.Is(refusal, goredis.Nil):
		return "", faultUnknownPrimary
	case refusal != nil:
		return "", s.fault(refusal, refused)
	case errors.Is(timeout, errTLS):
		return "", s.fault(timeout, silent)
	}
	f := &Fault{Reason: "sentinel", Problem: "no Sentinel responds", Advice: "check that the Sentinels are running and listen on these addresses", Err: timeout}
	switch {
	case !IsHangUp(timeout):
	case s.server.tls == nil:
		f.Advice += "; if they expect TLS, use rediss+sentinel://"
	case s.cleartext:
		f.Advice += "; if they expect TLS, remove sentinel_tls=false from the URL"
	}
	return "", f
}

// fault describes why the Sentinel at an address cannot be used.
func (s *sentinels) fault(err error, addr string) *Fault {
	f := s.server.Fault(err, false)
	var plain tls.RecordHeaderError
	switch {
	case goredis.IsPermissionError(err):
		user := s.login.user
		if s.login.password() == "" && !s.cleartext { // ask has also tried the user of Redis
			user = s.server.login.user
		}
		user = cmp.Or(user, "default")
		f.Reason, f.Problem = "right", "user "+user+" is not allowed to look up the primary at the Sentinel "+addr
		f.Advice = "in each Sentinel, ACL SETUSER " + user + " +sentinel|get-master-addr-by-name +sentinel|master"
		return f
	case goredis.HasErrorPrefix(err, "unknown command"):
		f.Reason, f.Problem, f.Advice = "sentinel", "the server is not a Sentinel", "use the Sentinels' addresses in the URL (default port 26379)"
		return f
	case errors.As(err, &plain), errors.Is(err, errTLS) && IsTimeout(err):
		f.Advice = "if only Redis uses TLS, append ?sentinel_tls=false to the URL; otherwise use redis+sentinel://"
	case f.Reason == "password" && s.login.password() == "":
		f.Advice = "set --redis-sentinel-password-file to the password of the Sentinels"
	case f.Reason == "password":
		f.Advice = "correct the password of the Sentinels (--redis-sentinel-password-file) and their user (?sentinel_user= in the URL); a running hub reads the file again after SIGHUP or with --reload-every"
	}
	f.Problem = "lookup of the primary at the Sentinel " + addr + " failed: " + f.Problem
	return f
}

// ask queries one Sentinel for the primary. Without a separate password, Sentinels have that of Redis, or
// often none, and reject AUTH then. So the first attempt is made without a password. The password of an
// encrypted Redis is never sent in cleartext.
func (s *sentinels) ask(ctx context.Context, sentinel string) (info primaryInfo, err error) {
	one := &Server{network: "tcp", addr: sentinel, isSentinel: true, dialTimeout: s.server.dialTimeout, answerTimeout: s.server.answerTimeout}
	one.locator = fixed{one}
	if !s.cleartext {
		one.tls = s.server.tls
	}
	if password := s.login.password(); password != "" {
		one.login.user = s.login.user
		one.SetPassword(password)
	}
	question := func(ctx context.Context, cn *goredis.Conn) error {
		// Request the epoch first: if both change in between, the address does not appear newer
		// than it is.
		about := goredis.NewMapStringStringCmd(ctx, "sentinel", "master", s.primary)
		_ = cn.Process(ctx, about) // the command contains the error
		if err := about.Err(); err != nil && !acl.IsReply(err) {
			return err
		}
		info.epoch, _ = strconv.ParseInt(about.Val()["config-epoch"], 10, 64)
		// Unlike SENTINEL MASTER, this returns the new primary as soon as it is promoted.
		where := goredis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", s.primary)
		_ = cn.Process(ctx, where)
		hostPort, err := where.Result()
		if err == nil && len(hostPort) != 2 {
			return errors.New("a Sentinel returned an invalid address")
		}
		if err == nil {
			info.addr = net.JoinHostPort(hostPort[0], hostPort[1])
		}
		return err
	}
	err = one.Ask(ctx, Target{}, question)
	login := &s.server.login
	if one.login.password() == "" && login.password() != "" && one.tls == s.server.tls && (goredis.HasErrorPrefix(err, "NOAUTH") || goredis.IsPermissionError(err)) {
		one.login.user = login.user
		one.SetPassword(login.password())
		err = one.Ask(ctx, Target{}, question)
	}
	return info, err
}

// admit rejects a replica: the Sentinel might not have noticed a failover yet.
func (s *sentinels) admit(ctx context.Context, cn *goredis.Conn, _ Target, _ string) (a admission, err error) {
	replication, err := Info(ctx, cn, "replication", func(acl.Permission, error) {}) // Introduce reports the missing permission
	if err != nil {
		return a, err
	}
	if role := InfoField(replication, "role"); role != "" && role != "master" {
		s.rotate()
		return a, faultNotPrimary
	}
	return a, nil
}

// hosts counts each Sentinel twice: for attempts without and with the password.
func (s *sentinels) hosts() int { return 2 * len(s.addrs) }

// rotate selects another Sentinel to query first: a partitioned one would return the old primary
// forever.
func (s *sentinels) rotate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = (s.first + 1) % len(s.addrs)
}

func (s *sentinels) known() (first int, epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.epoch
}

func (s *sentinels) accept(n int, epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.epoch = n, epoch
}
