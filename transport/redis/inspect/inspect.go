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
// does not store anything, and sets only the names of its connections.
//
// It reads (INFO, CONFIG GET, PUBSUB, XINFO), subscribes briefly to the channels of a hub, and
// publishes up to four messages of 26 bytes: one on its own probe channel, which hubs do not receive,
// and the others to a user and a group with a random name, which do not have a stream. With Presence
// and Redis before 7.0, it also publishes that a user with a random name is offline.
type Inspection struct {
	Server         *redis.Server
	Channels       redis.Channels
	BroadcastUser  string // "": broadcasts are disabled
	ControlChannel string
	StreamKey      string // of the stream feed; "": pub/sub
	MaxPayload     int    // bytes
	NoMarkers      bool   // hubs do not publish markers, because they use several Redis servers
	Presence       bool   // hubs keep the set of users that are online on this server

	markerPatience time.Duration // for tests; 0: markersWithin
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
//
// It returns the Fleet of the server, or nil if no hub publishes markers there. The Fleet receives markers until ctx
// ends or 11 s have passed, also if its Report is not called.
func (i Inspection) Run(ctx context.Context, report func(Finding)) *Fleet {
	in := &inspector{Inspection: i, server: (*topology.Server)(i.Server), report: report, token: rand.Text()}
	err := in.tryNodes(func() error { return in.ask(ctx, topology.Target{Key: i.StreamKey}, in.askAll) })
	var hubs *Fleet
	if err == nil && i.StreamKey == "" && !i.NoMarkers {
		hubs, err = in.receiveMarkers(ctx) // the other checks run meanwhile
	}
	if err == nil {
		err = in.checkSeveral(ctx)
	}
	if err == nil {
		err = in.checkAnnounced(ctx)
	}
	if err == nil && i.StreamKey == "" {
		err = in.checkEcho(ctx)
	}
	if err == nil && i.Presence {
		err = in.checkPresence(ctx)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		in.broken(err)
	default:
		in.permissions()
	}
	return hubs
}

// An inspector is one Inspection in progress.
type inspector struct {
	Inspection
	server *topology.Server
	report finding.Report
	token  string // distinguishes its messages from all others

	version     version
	state       string // of a cluster: "ok", "fail"
	denied      bool   // CLUSTER INFO is not allowed
	slotsDenied bool   // CLUSTER SLOTS is not allowed
	refused     bool   // a permission is missing
	noMessages  bool   // the subscription to the patterns was refused
}

// tryNodes repeats a use of a failing cluster with other nodes. A hub uses a node if all other nodes fail too, so an
// inspection does the same.
func (i *inspector) tryNodes(use func() error) error {
	err := use()
	for tries := i.server.Hosts(); errors.Is(err, topology.FaultPartitioned) && tries > 0; tries-- {
		err = use()
	}
	return err
}

// broken reports why Redis cannot be used.
func (i *inspector) broken(err error) {
	f := i.server.Fault(err, false)
	i.report.Fail("redis-"+f.Reason, f.Advice, "%s", f.Text())
}

// ask runs a question on a separate connection.
func (i *inspector) ask(ctx context.Context, to topology.Target, question func(context.Context, *goredis.Conn) error) error {
	var conn *topology.Conn
	conn = i.server.NewConn(ctx, to, func(ctx context.Context, cn *goredis.Conn) error {
		if i.state = conn.State; conn.Denied != nil && !i.denied {
			i.denied = true
			i.missing(Warn, acl.PermissionClusterInfo, conn.Denied)
		}
		if conn.SlotsDenied != nil && !i.slotsDenied {
			i.slotsDenied = true
			i.missing(Warn, acl.PermissionClusterSlots, conn.SlotsDenied)
		}
		return question(ctx, cn)
	})
	return conn.Use()
}

// askAll makes all checks that do not need a subscription. A missing permission is a finding; an error
// means that the connection cannot be used.
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
	if err := i.checkLimits(ctx, cn); err != nil {
		return err
	}
	if i.StreamKey != "" {
		return i.checkStream(ctx, cn)
	}
	return i.checkSubscriptions(ctx, cn)
}

// try reports a finding if Redis refuses a command that a hub does not strictly need.
func (i *inspector) try(r acl.Permission, err error) error {
	return acl.Optional(err, r, func(r acl.Permission, err error) { i.missing(Warn, r, err) })
}

// info returns a section of INFO, or "" if INFO is not allowed, which is reported once.
func (i *inspector) info(ctx context.Context, cn *goredis.Conn, section string) (string, error) {
	return topology.Info(ctx, cn, section, func(r acl.Permission, err error) {
		if section == "server" {
			i.missing(Warn, r, err)
		}
	})
}
