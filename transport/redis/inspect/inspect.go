package inspect

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/finding"
	"usercast/transport/redis"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// An Inspection checks whether a Redis is suitable for a hub. It is safe to run in production: it
// stores nothing, and sets only the names of its own connections.
//
// It reads (INFO, CONFIG GET, PUBSUB, XINFO), subscribes for a moment to the channels of a hub, and
// publishes two messages of about 40 bytes: one on its own probe channel, which no hub receives,
// and one to a user with a random name, who has no streams.
type Inspection struct {
	Server         *redis.Server
	ChannelPrefix  string
	ControlChannel string
	StreamKey      string // of the stream feed; "": pub/sub
	MaxPayload     int    // bytes
}

// A Finding is the result of one check.
type Finding = finding.Finding

// A Level is the severity of a Finding.
type Level = finding.Level

// The levels, in order of severity.
const (
	OK   = finding.OK   // as it should be
	Note = finding.Note // information; nothing to fix
	Warn = finding.Warn // works now, fails in some situation
	Fail = finding.Fail // must be fixed
)

// Run reports each finding as soon as it is made, on the goroutine of the caller. It blocks until
// all checks are done. If Redis is unavailable, it reports that and returns.
func (i Inspection) Run(ctx context.Context, report func(Finding)) {
	in := &inspector{Inspection: i, server: (*topology.Server)(i.Server), report: report, token: rand.Text()}
	err := in.ask(ctx, topology.Target{Key: i.StreamKey}, in.askAll)
	// As a hub does, which uses a failing cluster when there is no better node.
	for tries := in.server.Hosts(); errors.Is(err, topology.FaultPartitioned) && tries > 0; tries-- {
		err = in.ask(ctx, topology.Target{Key: i.StreamKey}, in.askAll)
	}
	if err == nil && i.StreamKey == "" {
		err = in.checkEcho(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		in.broken(err)
	default:
		in.rights()
	}
}

// An inspector is one Inspection in progress.
type inspector struct {
	Inspection
	server *topology.Server
	report finding.Report
	token  string // distinguishes its messages from all others

	version version
	state   string // of a cluster: "ok", "fail"
	denied  bool   // the node does not tell that state
	refused bool   // some right is missing
	deaf    bool   // the pattern was refused, and nothing can come back
}

// broken reports why Redis cannot be used.
func (i *inspector) broken(err error) {
	f := i.server.Fault(err, false)
	text := f.Problem
	if f.Err != nil {
		text += " (" + f.Err.Error() + ")"
	}
	i.report.Fail("redis-"+f.Reason, f.Advice, "%s", text)
}

// ask runs one question on a connection of its own.
func (i *inspector) ask(ctx context.Context, to topology.Target, question func(context.Context, *goredis.Conn) error) error {
	var conn *topology.Conn
	conn = i.server.NewConn(ctx, to, func(ctx context.Context, cn *goredis.Conn) error {
		if i.state = conn.State; conn.Denied != nil && !i.denied {
			i.denied = true
			i.missing(Warn, acl.PermissionClusterInfo, conn.Denied)
		}
		return question(ctx, cn)
	})
	return conn.Use()
}

// askAll asks all that needs no subscription. A refusal is a finding; an error means
// that the connection cannot be used.
func (i *inspector) askAll(ctx context.Context, cn *goredis.Conn) error {
	if err := i.try(acl.PermissionName, cn.ClientSetName(ctx, topology.ClientName).Err()); err != nil {
		return err
	}
	start := time.Now()
	if err := i.try(acl.PermissionPing, cn.Ping(ctx).Err()); err != nil {
		return err
	}
	took := time.Since(start)
	if err := i.checkServer(ctx, cn, took); err != nil {
		return err
	}
	if i.StreamKey != "" {
		return i.checkStream(ctx, cn)
	}
	if err := i.checkBuffers(ctx, cn); err != nil {
		return err
	}
	return i.checkSubscriptions(ctx, cn)
}

// try makes a finding of the refusal of a command that a hub can do without.
func (i *inspector) try(r acl.Permission, err error) error {
	return acl.Optional(err, r, func(r acl.Permission, err error) { i.missing(Warn, r, err) })
}

// info is a section of INFO, or "" when it is not allowed, which is reported once.
func (i *inspector) info(ctx context.Context, cn *goredis.Conn, section string) (string, error) {
	return topology.Info(ctx, cn, section, func(r acl.Permission, err error) {
		if section == "server" {
			i.missing(Warn, r, err)
		}
	})
}
