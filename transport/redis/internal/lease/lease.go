package lease

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// Batch is the maximum number of users per script. Redis executes no other command while a script runs, about half a
// millisecond; larger batches need hardly less CPU.
const Batch = 100

// Keys are the names of what a Set uses in Redis. In a cluster, both keys have the same slot.
type Keys struct {
	Users   string // the sorted set
	Swept   string // the time of the last removal
	Channel string // where transitions are published
}

// KeysOf returns the names for hubs with a channel prefix.
func KeysOf(prefix string) Keys {
	users := acl.OwnChannels + prefix + "online"
	swept := users + ":swept" // if the prefix has a hash tag
	if !topology.SameSlot(users, swept) {
		swept = "{" + users + "}:swept"
	}
	return Keys{Users: users, Swept: swept, Channel: acl.OwnChannels + prefix + "presence"}
}

// Validate returns why the keys cannot be used in a cluster, or nil.
func (k Keys) Validate() error {
	if !topology.SameSlot(k.Users, k.Swept) {
		return errors.New("the channel prefix must not contain }, except after a hash tag such as {app}")
	}
	return nil
}

// A Set runs the scripts. Its fields are immutable.
type Set struct {
	Keys
	Length time.Duration // of a lease, in whole seconds
	Pause  time.Duration // maximum time between two sweeps of hubs that reach Redis, in whole seconds
}

// Refused is how many messages Redis refused to publish, and why.
type Refused struct {
	Messages int
	Err      error // an error reply; nil: none was refused
}

//go:embed extend.lua
var extendSource string

//go:embed sweep.lua
var sweepSource string

var extend, sweep = goredis.NewScript(extendSource), goredis.NewScript(sweepSource)

// A Do runs commands on a connection to the node that has the keys. In a cluster, a node may redirect the first command only.
type Do func(run func(goredis.Cmdable) error) error

// Extend extends the leases of at most Batch users, without duplicates, and publishes those who were not online. Errors are
// those of Do.
func (s Set) Extend(ctx context.Context, do Do, users []string) (Refused, error) {
	args := make([]any, 0, 2+len(users))
	args = append(args, s.Channel, seconds(s.Length))
	for _, user := range users {
		args = append(args, user)
	}
	reply, err := run(ctx, do, extend, []string{s.Users}, args)
	if err != nil {
		return Refused{}, err
	}
	refused, ok := refusedIn(reply)
	if !ok || len(reply) != 2 {
		return Refused{}, badReply("lease script", reply)
	}
	return refused, nil
}

// A Sweep is the result of Set.Sweep.
type Sweep struct {
	Online int  // users whose lease has not ended
	More   bool // there may be more users to remove
	// From is the Unix time before which no user is removed. It changes after an outage, and if Redis has lost the keys.
	From    int64
	Refused Refused
}

// Sweep removes at most Batch users whose lease has ended, and publishes them.
func (s Set) Sweep(ctx context.Context, do Do) (Sweep, error) {
	reply, err := run(ctx, do, sweep, []string{s.Users, s.Swept}, []any{s.Channel, seconds(s.Length), seconds(s.Pause), Batch})
	if err != nil {
		return Sweep{}, err
	}
	if len(reply) == 5 {
		online, ok1 := reply[0].(int64)
		removed, ok2 := reply[1].(int64)
		from, ok3 := reply[2].(int64)
		refused, ok4 := refusedIn(reply[3:])
		if ok1 && ok2 && ok3 && ok4 {
			return Sweep{Online: int(online), More: removed >= Batch, From: from, Refused: refused}, nil
		}
	}
	return Sweep{}, badReply("sweep script", reply)
}

// run runs a script, which it sends only if Redis does not have it.
func run(ctx context.Context, do Do, script *goredis.Script, keys []string, args []any) (reply []any, err error) {
	err = do(func(redis goredis.Cmdable) error {
		reply, err = script.EvalSha(ctx, redis, keys, args...).Slice()
		return err
	})
	if goredis.HasErrorPrefix(err, "NOSCRIPT") {
		err = do(func(redis goredis.Cmdable) error {
			reply, err = script.Eval(ctx, redis, keys, args...).Slice()
			return err
		})
	}
	return reply, err
}

// Online returns which of the users are online, in the same order.
func (s Set) Online(ctx context.Context, do Do, users []string) (online []string, err error) {
	var scores []float64 // 0: not in the set
	if err = do(func(redis goredis.Cmdable) (err error) {
		scores, err = redis.ZMScore(ctx, s.Users, users...).Result()
		return err
	}); err != nil {
		return nil, err
	}
	if len(scores) != len(users) {
		return nil, badReply("ZMSCORE", scores)
	}
	// Afterwards: a user whom a hub removes from now on is offline at its next request.
	least, err := s.leastScore(ctx, do)
	if err != nil {
		return nil, err
	}
	online = []string{}
	for i, score := range scores {
		if score >= float64(least) {
			online = append(online, users[i])
		}
	}
	return online, nil
}

// Count returns how many users are online.
func (s Set) Count(ctx context.Context, do Do) (int, error) {
	least, err := s.leastScore(ctx, do)
	if err != nil {
		return 0, err
	}
	var n int64
	err = do(func(redis goredis.Cmdable) (err error) {
		n, err = redis.ZCount(ctx, s.Users, strconv.FormatInt(least, 10), "+inf").Result()
		return err
	})
	return int(n), err
}

// leastScore returns the score from which a user is online: the time, or 1 while leases may have ended because hubs could not
// extend them. It decides as the script that removes users does.
func (s Set) leastScore(ctx context.Context, do Do) (int64, error) {
	var swept *goredis.StringCmd
	var clock *goredis.TimeCmd
	if err := do(func(redis goredis.Cmdable) error {
		_, err := redis.Pipelined(ctx, func(p goredis.Pipeliner) error {
			swept, clock = p.Get(ctx, s.Swept), p.Time(ctx) // in this order, so that the last sweep is not after the time
			return nil
		})
		if err == goredis.Nil {
			err = clock.Err()
		}
		return err
	}); err != nil {
		return 0, err
	}
	now := clock.Val().Unix()
	var last, from int64
	if n, _ := fmt.Sscanf(swept.Val(), "%d %d", &last, &from); n < 2 || now < last || now-last > seconds(s.Pause) || now < from {
		return 1, nil
	}
	return now, nil
}

func refusedIn(reply []any) (r Refused, ok bool) {
	if len(reply) != 2 {
		return r, false
	}
	n, ok1 := reply[0].(int64)
	why, ok2 := reply[1].(string)
	if n > 0 {
		if !strings.Contains(why, "nknown") { // the wording depends on the version, and does not always begin with NOPERM
			why = "NOPERM " + why
		}
		r = Refused{Messages: int(n), Err: replyError(why)}
	}
	return r, ok1 && ok2
}

// A replyError is an error reply that a script has received.
type replyError string

func (e replyError) Error() string { return string(e) }
func (replyError) RedisError()     {}

func badReply(command string, reply any) error {
	return fmt.Errorf("%s returned %T of an unexpected length or type", command, reply)
}

func seconds(d time.Duration) int64 { return int64(d / time.Second) }
