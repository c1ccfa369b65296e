package inspect

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// unknownUser is the prefix of the user to whom an inspection publishes. The rest of the name is
// random, so no stream has this user, and hubs count the message as unrouted.
const unknownUser = "usercastcheck"

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
	user, err := i.unknownChannel()
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
		receivers, err := cn.Publish(ctx, user, i.token).Result()
		if err := i.try(acl.PermissionPublish(acl.Pattern(i.Channels.Users)), err); err != nil {
			return err
		}
		if err == nil && !i.noMessages {
			awaited[user] = true
			receivers-- // without this inspection
		}
		return i.await(conn, awaited, start, err == nil, receivers)
	})
}

// unknownChannel returns the channel of a user without a stream.
func (i *inspector) unknownChannel() (string, error) {
	return i.Channels.Name(hub.User(unknownUser+i.token), "")
}

// subscribe sends the same commands as a hub, in the same order, and reads the replies.
func (i *inspector) subscribe(conn *topology.Conn, probe string) (probed bool, err error) {
	users := acl.Pattern(i.Channels.Users)
	if err := conn.PSubscribe(users); err != nil {
		return false, err
	}
	if err := conn.Subscribe(i.ControlChannel); err != nil {
		return false, err
	}
	if err := conn.Subscribe(probe); err != nil {
		return false, err
	}
	refused := []func(error){
		func(err error) { i.noMessages = true; i.missing(Fail, acl.PermissionUsers(users), err) },
		func(err error) { i.missing(Fail, acl.PermissionControl(i.ControlChannel), err) },
		func(err error) { probed = false; i.missing(Warn, acl.PermissionProbeSubscribe(probe), err) },
	}
	probed = true
	for deadline := time.Now().Add(i.server.AnswerTimeout()); len(refused) > 0; {
		received, err := conn.Receive()
		switch {
		case err != nil && (!acl.IsReply(err) || goredis.IsAuthError(err)):
			return false, err
		case err != nil:
			refused[0](err)
			refused = refused[1:]
		case time.Now().After(deadline):
			return false, topology.FaultUnresponsive
		default:
			if _, ok := received.(*goredis.Subscription); ok {
				refused = refused[1:]
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
