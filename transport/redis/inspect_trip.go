package redis

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/advice"
)

// nobody begins the name of the user to whom an inspection publishes. What follows is
// random: nobody is called so, and hubs count the message as one that nobody heard.
const nobody = "usercast-check-"

// trip subscribes as a hub does, publishes over another connection, and waits for what
// comes back.
func (i *inspector) trip(ctx context.Context) error {
	l := i.Server.newLink(ctx, func(ctx context.Context, cn *goredis.Conn) error {
		return optional(cn.ClientSetName(ctx, clientName).Err(), rightName, func(right, error) {}) // told before
	})
	l.patience = i.Server.answerTimeout
	defer l.close()
	probe := probeChannel(i.ChannelPrefix, i.token)
	probed, err := i.subscribe(ctx, l, probe)
	if err != nil {
		return err
	}
	user, err := Channel(i.ChannelPrefix, nobody+i.token, "")
	if err != nil {
		return err
	}
	return i.ask(ctx, target{not: l.addr}, func(ctx context.Context, cn *goredis.Conn) error {
		start := time.Now()
		err := cn.Publish(ctx, probe, i.token).Err()
		if err := i.try(rightProbePublish(probe), err); err != nil {
			return err
		}
		awaited := make(map[string]bool)
		if err == nil && probed {
			awaited[probe] = true
		}
		heard, err := cn.Publish(ctx, user, i.token).Result()
		if err := i.try(rightPublish(pattern(i.ChannelPrefix)), err); err != nil {
			return err
		}
		if err == nil && !i.unheard {
			awaited[user] = true
			heard-- // we did
		}
		return i.await(ctx, l, awaited, start, err == nil, heard)
	})
}

// subscribe sends what a hub sends, in its order, and takes the answers.
func (i *inspector) subscribe(ctx context.Context, l *link, probe string) (probed bool, err error) {
	ctx = context.WithoutCancel(ctx)
	users := pattern(i.ChannelPrefix)
	if err := l.pubsub.Subscribe(ctx, i.ControlChannel); err != nil {
		return false, l.why(err)
	}
	if err := l.pubsub.PSubscribe(ctx, users); err != nil {
		return false, err
	}
	if err := l.pubsub.Subscribe(ctx, probe); err != nil {
		return false, err
	}
	refused := []func(error){
		func(err error) { i.missing(advice.Fail, rightControl(i.ControlChannel), err) },
		func(err error) { i.unheard = true; i.missing(advice.Fail, rightUsers(users), err) },
		func(err error) { probed = false; i.missing(advice.Warn, rightProbeSubscribe(probe), err) },
	}
	probed = true
	for deadline := time.Now().Add(i.Server.answerTimeout); len(refused) > 0; {
		received, err := l.receive(ctx)
		switch {
		case err != nil && (!isReply(err) || goredis.IsAuthError(err)):
			return false, err
		case err != nil:
			refused[0](err)
			refused = refused[1:]
		case time.Now().After(deadline):
			return false, faultSilent
		default:
			if _, ok := received.(*goredis.Subscription); ok {
				refused = refused[1:]
			}
		}
	}
	return probed, nil
}

// await reads until all that was published has come back, or too much time has passed.
func (i *inspector) await(ctx context.Context, l *link, awaited map[string]bool, start time.Time, counted bool, heard int64) error {
	if len(awaited) == 0 {
		return nil // it was said why
	}
	for deadline := start.Add(i.Server.answerTimeout); len(awaited) > 0; {
		received, err := l.receive(context.WithoutCancel(ctx))
		if err != nil && !isTimeout(err) {
			return err
		}
		if m, ok := received.(*goredis.Message); ok && m.Payload == i.token {
			delete(awaited, m.Channel)
		}
		if err != nil || len(awaited) > 0 && time.Now().After(deadline) {
			i.tell.Fail("redis-echo", "give the address of one primary, or of its Sentinels",
				"what is published at this address does not come back to a subscription at the same address: does the name lead to several Redis?")
			return nil
		}
	}
	i.tell.OK("redis-echo", "a message came back over a subscription in %s", short(time.Since(start)))
	switch {
	case !counted, i.Server.cluster != nil: // it counts those of one node
	case heard <= 0:
		i.tell.Note("redis-hubs", "", "nobody else is subscribed to %s: no hub runs on this Redis yet", pattern(i.ChannelPrefix))
	case heard == 1:
		i.tell.OK("redis-hubs", "one other is subscribed to %s: a hub, or a part of the app", pattern(i.ChannelPrefix))
	default:
		i.tell.OK("redis-hubs", "%d others are subscribed to %s: hubs, or parts of the app", heard, pattern(i.ChannelPrefix))
	}
	return nil
}
