package topology

import (
	"cmp"
	"context"
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

// sentinels know where the primary is. They are asked for every connection, one
// after the other until one answers: the address is not kept.
type sentinels struct {
	addrs   []string // at least one; immutable
	primary string   // its name; immutable

	// Guarded by mu.
	mu sync.Mutex
	// first is the index of the one to ask first: the one that answered last, as
	// long as its answers lead to a primary.
	first int
	// epoch is the config-epoch of the answer last believed. Every fail-over has a
	// higher one, and a Sentinel that is cut off from the others stays at a lower one.
	epoch int64
}

// sighting is what one Sentinel says of the primary.
type sighting struct {
	addr  string
	epoch int64
}

// AskEvery is the time between requests for the address of the primary while a feed is connected
// to it.
const AskEvery = 2 * time.Second

// LocatePrimary asks the next Sentinel for the address of the primary: one after the other, in
// case one of them is cut off. Only with HasSentinels.
func (s *Server) LocatePrimary(ctx context.Context) (addr string, err error) {
	s.sentinels.doubt()
	return s.locatePrimary(ctx)
}

// Faults of what Sentinels say.
var (
	faultUnknownPrimary = &Fault{Reason: "sentinel", Problem: "the sentinels know no primary of this name", Advice: "correct the name in the URL: SENTINEL MASTERS lists them"}
	faultNotPrimary     = &Fault{Reason: "sentinel", Problem: "the redis that a sentinel names as primary is a replica", Advice: "nothing: asking again until the fail-over is done"}
)

func (s *Server) parseSentinels(u *url.URL, others []string) error {
	addrs, err := parseHosts(u, others, "26379")
	if err != nil {
		return err
	}
	name, db, _ := strings.Cut(strings.Trim(u.Path, "/"), "/")
	if name == "" {
		return errors.New("a redis+sentinel:// URL needs the name of the primary: redis+sentinel://host,host/name")
	}
	s.network, s.addr = "tcp", addrs[0]
	s.sentinels = &sentinels{addrs: addrs, primary: name}
	return s.setDatabase(db)
}

// dialPrimary asks the Sentinels where the primary is, and connects to it.
func (s *Server) dialPrimary(ctx context.Context) (socket, error) {
	addr, err := s.locatePrimary(ctx)
	if err != nil {
		return socket{}, err
	}
	far, err := s.dialAddr(ctx, addr)
	if err != nil {
		s.sentinels.doubt()
	}
	return far, err
}

// locatePrimary returns the primary's address as the first Sentinel knows it that
// is not behind the others.
func (s *Server) locatePrimary(ctx context.Context) (addr string, err error) {
	var (
		all          = s.sentinels
		first, epoch = all.known()
		stale        []sighting
		refusal      error // of one that answered
		silence      error // of one that did not
	)
	for i := range all.addrs {
		n := (first + i) % len(all.addrs)
		seen, err := s.askSentinel(ctx, all.addrs[n])
		switch {
		case err == nil && seen.epoch >= epoch:
			all.believe(n, seen.epoch)
			return seen.addr, nil
		case err == nil:
			stale = append(stale, seen)
		case ctx.Err() != nil:
			return "", context.Cause(ctx)
		case acl.IsReply(err):
			refusal = err
		default:
			silence = err
		}
	}
	switch {
	case len(stale) > 0:
		// Nobody knows better: it may be all that can be reached, or SENTINEL RESET.
		best := slices.MaxFunc(stale, func(a, b sighting) int { return cmp.Compare(a.epoch, b.epoch) })
		all.believe(first, best.epoch)
		return best.addr, nil
	case errors.Is(refusal, goredis.Nil):
		return "", faultUnknownPrimary
	case refusal != nil:
		f := s.Fault(refusal, false)
		if goredis.HasErrorPrefix(refusal, "unknown command") {
			f.Reason, f.Problem, f.Advice = "sentinel", "what answers is no sentinel", "name the sentinels' addresses in the URL; their port is 26379"
			return "", f
		}
		f.Problem = "asked for the primary: " + f.Problem
		return "", f
	}
	return "", &Fault{Reason: "sentinel", Problem: "no sentinel answers", Advice: "are they running, and at these addresses?", Err: silence}
}

// askSentinel asks one Sentinel for the primary. Sentinels often have no
// password where Redis has one, and refuse a log-in then: so it is tried without.
func (s *Server) askSentinel(ctx context.Context, sentinel string) (seen sighting, err error) {
	one := &Server{network: s.network, addr: sentinel, dialTimeout: s.dialTimeout, answerTimeout: s.answerTimeout}
	question := func(ctx context.Context, cn *goredis.Conn) error {
		// The epoch first: should both change in between, the address is not taken for
		// newer than it is.
		about := goredis.NewMapStringStringCmd(ctx, "sentinel", "master", s.sentinels.primary)
		_ = cn.Process(ctx, about) // the error is in the command, too
		if err := about.Err(); err != nil && !acl.IsReply(err) {
			return err
		}
		seen.epoch, _ = strconv.ParseInt(about.Val()["config-epoch"], 10, 64)
		// Unlike the former, this names the promoted one as soon as it is promoted.
		where := goredis.NewStringSliceCmd(ctx, "sentinel", "get-master-addr-by-name", s.sentinels.primary)
		_ = cn.Process(ctx, where)
		hostPort, err := where.Result()
		if err == nil && len(hostPort) != 2 {
			return errors.New("a sentinel's answer is no address")
		}
		if err == nil {
			seen.addr = net.JoinHostPort(hostPort[0], hostPort[1])
		}
		return err
	}
	err = one.Ask(ctx, Target{}, question)
	if s.password() != "" && (goredis.HasErrorPrefix(err, "NOAUTH") || goredis.IsPermissionError(err)) {
		one.user = s.user
		one.SetPassword(s.password())
		err = one.Ask(ctx, Target{}, question)
	}
	return seen, err
}

// admitPrimary refuses a replica. A Sentinel may not have heard of a fail-over yet.
func (s *Server) admitPrimary(ctx context.Context, cn *goredis.Conn) error {
	replication, err := Info(ctx, cn, "replication", func(acl.Right, error) {}) // introduce names the right
	if err != nil {
		return err
	}
	if role := InfoField(replication, "role"); role != "" && role != "master" {
		s.sentinels.doubt()
		return faultNotPrimary
	}
	return nil
}

// doubt makes another Sentinel the first to be asked: one that is cut off from the
// others would name the old primary for ever.
func (s *sentinels) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = (s.first + 1) % len(s.addrs)
}

func (s *sentinels) known() (first int, epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.first, s.epoch
}

func (s *sentinels) believe(n int, epoch int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first, s.epoch = n, epoch
}
