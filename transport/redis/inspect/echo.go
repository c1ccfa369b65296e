package inspect

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// unknown is the prefix of the user and the group to which an inspection publishes. The rest of the name is random, so no
// stream has this user or group, and hubs count the message as unrouted.
const unknown = "usercastcheck"

// checkEcho subscribes as a hub does, publishes over another connection, and waits for the messages.
func (i *inspector) checkEcho(ctx context.Context) error {
	conn := i.server.NewConn(ctx, topology.Target{}, func(ctx context.Context, cn *goredis.Conn) error {
		return acl.Optional(cn.ClientSetName(ctx, topology.ClientName).Err(), acl.PermissionName, func(acl.Permission, error) {}) // askAll has reported it
	})
	conn.Patience = i.server.AnswerTimeout()
	defer conn.Close()
	probe := acl.ProbeChannel(i.Channels.Users, i.token)
	probed, err := i.subscribe(conn, probe)
	if err != nil {
		return err
	}
	return i.ask(ctx, topology.Target{Not: conn.Addr}, func(ctx context.Context, cn *goredis.Conn) error {
		start := time.Now()
		err := cn.Publish(ctx, probe, i.token).Err()
		if err := i.try(acl.PermissionProbePublish(probe), err); err != nil {
			return err
		}
		awaited := make(map[string]bool)
		if err == nil && probed {
			awaited[probe] = true
		}
		publish := func(to hub.Recipient, prefix string) (receivers int64, ok bool, err error) {
			channel, err := i.Channels.Name(to, "")
			if err != nil {
				return 0, false, err
			}
			receivers, err = cn.Publish(ctx, channel, i.token).Result()
			if ok = err == nil; ok && !i.noMessages {
				awaited[channel] = true
				receivers-- // without this inspection
			}
			return receivers, ok, i.try(acl.PermissionPublish(acl.Pattern(prefix), to.Group), err)
		}
		receivers, counted, err := publish(hub.User(unknown+i.token), i.Channels.Users)
		if err == nil && i.Channels.Groups != "" {
			_, _, err = publish(hub.Group(unknown+i.token), i.Channels.Groups)
		}
		if err != nil {
			return err
		}
		return i.await(conn, awaited, start, counted, receivers)
	})
}

// subscribe sends the same commands as a hub, in the same order, and reads the replies.
func (i *inspector) subscribe(conn *topology.Conn, probe string) (probed bool, err error) {
	patterns := i.Channels.Patterns()
	if err := conn.PSubscribe(patterns...); err != nil {
		return false, err
	}
	if err := conn.Subscribe(i.ControlChannel); err != nil {
		return false, err
	}
	if err := conn.Subscribe(probe); err != nil {
		return false, err
	}
	type command struct {
		confirmations int // the error that replaces all of them is one reply
		refused       func(error)
	}
	commands := []command{
		{len(patterns), func(err error) { i.noMessages = true; i.missing(Fail, acl.PermissionPatterns(patterns), err) }},
		{1, func(err error) { i.missing(Fail, acl.PermissionControl(i.ControlChannel), err) }},
		{1, func(err error) { probed = false; i.missing(Warn, acl.PermissionProbeSubscribe(probe), err) }},
	}
	probed = true
	for deadline := time.Now().Add(i.server.AnswerTimeout()); len(commands) > 0; {
		received, err := conn.Receive()
		switch {
		case err != nil && (!acl.IsReply(err) || goredis.IsAuthError(err)):
			return false, err
		case err != nil:
			commands[0].refused(err)
			commands = commands[1:]
		case time.Now().After(deadline):
			return false, topology.FaultUnresponsive
		default:
			if _, ok := received.(*goredis.Subscription); !ok {
				continue
			}
			if commands[0].confirmations--; commands[0].confirmations == 0 {
				commands = commands[1:]
			}
		}
	}
	return probed, nil
}

// await reads until all published messages have been received, or until the timeout.
func (i *inspector) await(conn *topology.Conn, awaited map[string]bool, start time.Time, counted bool, receivers int64) error {
	if len(awaited) == 0 {
		return nil // the reason has been reported
	}
	for deadline := start.Add(i.server.AnswerTimeout()); len(awaited) > 0; {
		received, err := conn.Receive()
		if err != nil && !topology.IsTimeout(err) {
			return err
		}
		if m, ok := received.(*goredis.Message); ok && m.Payload == i.token {
			delete(awaited, m.Channel)
		}
		if err != nil || len(awaited) > 0 && time.Now().After(deadline) {
			i.report.Fail("redis-echo", "check whether the name leads to several Redis servers; use the address of one primary or of its Sentinels",
				"messages published to this address do not reach a subscription at the same address")
			return nil
		}
	}
	i.report.OK("redis-echo", "a published message was received in %s", short(time.Since(start)))
	switch {
	case !counted, i.server.IsCluster(): // PUBLISH counts only the subscribers of one node
	case receivers <= 0:
		i.report.Note("redis-hubs", "", "no other client is subscribed to %s: no hub uses this Redis yet", acl.Pattern(i.Channels.Users))
	case receivers == 1:
		i.report.OK("redis-hubs", "one other client is subscribed to %s: a hub or part of the app", acl.Pattern(i.Channels.Users))
	default:
		i.report.OK("redis-hubs", "%d other clients are subscribed to %s: hubs or parts of the app", receivers, acl.Pattern(i.Channels.Users))
	}
	return nil
}
