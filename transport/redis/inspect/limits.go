package inspect

import (
	"context"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// Redis's own defaults.
const usualHard, usualSoft, usualSeconds = 32 << 20, 8 << 20, 60

// payloadsInBuffer is how many messages of maximum size should fit into Redis's buffer for a
// subscriber. The buffer fills whenever the hub's host is briefly busy.
const payloadsInBuffer = 8

// bufferLimit is one class of client-output-buffer-limit. 0 means no limit.
type bufferLimit struct{ hard, soft, seconds int64 }

func (b bufferLimit) String() string {
	return fmt.Sprintf("%s %s %d", redisSize(b.hard), redisSize(b.soft), b.seconds)
}

// parseBufferLimit finds "class hard soft seconds" in the reply to CONFIG GET.
func parseBufferLimit(text, class string) (b bufferLimit, ok bool) {
	fields := strings.Fields(text)
	at := slices.Index(fields, class)
	if at < 0 || at+4 > len(fields) {
		return b, false
	}
	for n, v := range []*int64{&b.hard, &b.soft, &b.seconds} {
		var err error
		if *v, err = strconv.ParseInt(fields[at+1+n], 10, 64); err != nil {
			return b, false
		}
	}
	return b, true
}

// raisedTo returns b with each limit raised to at least that of wanted. 0 stays 0, which means no limit.
func (b bufferLimit) raisedTo(wanted bufferLimit) bufferLimit {
	if b.hard > 0 {
		b.hard = max(b.hard, wanted.hard)
	}
	if b.soft > 0 {
		b.soft = max(b.soft, wanted.soft)
	}
	b.seconds = max(b.seconds, wanted.seconds)
	return b
}

// inBuffer returns how much of the output buffer a message takes: Redis counts what its allocator reserves for
// the message, which is up to a quarter more (size classes of jemalloc, four per power of two).
func inBuffer(payload int64) int64 {
	step := int64(1) << max(bits.Len64(uint64(payload))-3, 12)
	return (payload + step - 1) / step * step
}

// briefly is a time in seconds for which a hub may be busy.
const briefly = 5

// checkLimits checks whether Redis accepts messages of the maximum size, and whether it would disconnect a hub
// that is briefly busy.
func (i *inspector) checkLimits(ctx context.Context, cn *goredis.Conn) error {
	const parameter = "client-output-buffer-limit"
	largest := int64(i.MaxPayload)
	wanted := bufferLimit{max(usualHard, payloadsInBuffer*largest), max(usualSoft, payloadsInBuffer/4*largest), usualSeconds}
	class, enough := "pubsub", fmt.Sprintf("pubsub %v or more", wanted)
	if i.StreamKey != "" {
		class, enough = "normal", "normal 0 0 0, the default"
	}
	text, err := i.setting(ctx, cn, parameter)
	if err != nil {
		return err
	}
	limit, known := parseBufferLimit(text, class)
	set := fmt.Sprintf("CONFIG SET %s \"%s %v\"", parameter, class, limit.raisedTo(wanted))
	switch {
	case !known:
		i.report.Note("redis-buffer", fmt.Sprintf("as an administrator, check that %s is %s", parameter, enough),
			"the limit at which Redis disconnects a slow client could not be read: CONFIG GET is not available")
		return nil // the others cannot be read either
	case limit.hard > 0 && limit.hard <= inBuffer(largest):
		i.report.Fail("redis-buffer", set, "%s %s %v: a single message of --max-payload (%s) makes Redis disconnect the hub", parameter, class, limit, redisSize(largest))
	case limit.hard > 0 && limit.hard < wanted.hard, limit.soft > 0 && (limit.soft < wanted.soft || limit.seconds < briefly):
		i.report.Warn("redis-buffer", set, "%s %s %v is low for messages of up to %s: Redis disconnects a hub that is briefly busy, and all pages receive a gap", parameter, class, limit, redisSize(largest))
	default:
		i.report.OK("redis-buffer", "%s %s %v leaves enough headroom", parameter, class, limit)
	}
	// Redis closes the connection of a client that publishes more.
	for _, l := range []struct {
		parameter string
		over      int64 // what Redis adds to the size of a payload
		wanted    int64
	}{
		{"proto-max-bulk-len", 0, 512 << 20},
		{"client-query-buffer-limit", 16 << 10, 1 << 30},
	} {
		text, err := i.setting(ctx, cn, l.parameter)
		if err != nil {
			return err
		}
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && n < largest+l.over {
			i.report.Warn("redis-"+l.parameter, fmt.Sprintf("CONFIG SET %s %s, or reduce --max-payload", l.parameter, redisSize(max(l.wanted, 2*largest))),
				"%s %s is too low for messages of --max-payload (%s): Redis closes the connection of the app that publishes one", l.parameter, redisSize(n), redisSize(largest))
		}
	}
	return nil
}

// setting returns a parameter of the server, or "" if CONFIG is not available.
func (i *inspector) setting(ctx context.Context, cn *goredis.Conn, name string) (string, error) {
	values, err := cn.ConfigGet(ctx, name).Result()
	return values[name], acl.Optional(err, acl.Permission{}, func(acl.Permission, error) {})
}

// manyPatterns is the number of patterns at which matching takes a noticeable part of each PUBLISH.
const manyPatterns = 1000

// manyChannels is the number of channels at which listing them would block Redis for a noticeable time.
const manyChannels = 10_000

// checkSubscriptions checks the subscriptions of other clients: patterns, which slow down each PUBLISH,
// and channels that contain the channel prefix after another prefix, unless there are too many channels.
func (i *inspector) checkSubscriptions(ctx context.Context, cn *goredis.Conn) error {
	ignore := func(acl.Permission, error) {} // without the permission, this check is skipped
	patterns, err := cn.PubSubNumPat(ctx).Result()
	if err := acl.Optional(err, acl.PermissionPubSub, ignore); err != nil {
		return err
	}
	if patterns >= manyPatterns {
		i.report.Warn("redis-patterns", "stop per-user PSUBSCRIBE in the app: a hub needs one pattern for all users",
			"%d patterns are subscribed, and Redis matches all of them on every PUBLISH", patterns)
	}
	stats, err := i.info(ctx, cn, "stats")
	if err != nil {
		return err
	}
	if n, err := strconv.Atoi(topology.InfoField(stats, "pubsub_channels")); err != nil || n > manyChannels {
		return nil
	}
	channels, err := cn.PubSubChannels(ctx, "?*"+acl.Pattern(i.Channels.Users)).Result()
	if err := acl.Optional(err, acl.PermissionPubSub, ignore); err != nil {
		return err
	}
	for _, channel := range channels {
		if before, _, _ := strings.Cut(channel, i.Channels.Users); before != "" && !strings.HasPrefix(channel, acl.OwnChannels) {
			// The app's connection also prepends its prefix to the control channel.
			i.report.Note("redis-prefix", fmt.Sprintf("if the app also publishes with this prefix, set --channel-prefix '%[1]s%[2]s' --control-channel '%[1]s%[3]s', or remove the prefix from the app's Redis settings",
				before, i.Channels.Users, redis.ControlChannel(i.Channels.Users)),
				"a client is subscribed to %q, perhaps an app that prefixes all channels with %q, as Laravel does; the hub would not receive its messages", channel, before)
			break
		}
	}
	return nil
}

// redisSize formats a size as in Redis's configuration.
func redisSize(n int64) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + "mb"
	case n >= 1<<10 && n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + "kb"
	}
	return strconv.FormatInt(n, 10)
}
