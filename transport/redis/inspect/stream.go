package inspect

import (
	"context"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
)

// untrimmed is the age of the oldest entry at which a stream appears not to be trimmed.
const untrimmed = 24 * time.Hour

// checkStream sends the same commands on the stream as a hub, for one entry each.
func (i *inspector) checkStream(ctx context.Context, cn *goredis.Conn) error {
	if i.version.below(6, 2) {
		i.report.Fail("redis-version", "run Redis 6.2 or later, or Valkey", "this Redis does not support XADD with MINID, which apps need to trim the stream")
	} else if i.version.below(7, 0) {
		i.report.Note("redis-version", "run Redis 7 or later, or Valkey", "before Redis 7, streams do not have counters: after a disconnect, a hub announces a loss if entries were trimmed, even if it had already read them")
	}
	readable := true
	need := func(command string, err error) error {
		return acl.Optional(err, acl.PermissionRead(command, i.StreamKey), func(r acl.Permission, err error) {
			readable = false
			if goredis.IsPermissionError(err) {
				i.missing(Fail, r, err)
				return
			}
			i.broken(&resp.ReplyError{Command: strings.ToUpper(strings.ReplaceAll(command, "|", " ")), Text: err.Error()})
		})
	}
	info, err := cn.XInfoStream(ctx, i.StreamKey).Result()
	if goredis.HasErrorPrefix(err, "no such key") {
		info, err = &goredis.XInfoStream{}, nil
	}
	if goredis.HasErrorPrefix(err, "WRONGTYPE") {
		i.report.Fail("redis-type", "rename that key, or use another --stream-key", "%s is not a stream", i.StreamKey)
		return nil
	}
	if err := need("xinfo|stream", err); err != nil {
		return err
	}
	if err := need("xrange", cn.XRangeN(ctx, i.StreamKey, "-", "+", 1).Err()); err != nil {
		return err
	}
	if err := need("xrevrange", cn.XRevRangeN(ctx, i.StreamKey, "+", "-", 1).Err()); err != nil {
		return err
	}
	err = cn.XRead(ctx, &goredis.XReadArgs{Streams: []string{i.StreamKey, "$"}, Count: 1, Block: -1}).Err()
	if err == goredis.Nil { // as expected: no entry after the newest one
		err = nil
	}
	if err := need("xread", err); err != nil {
		return err
	}
	if err := i.try(acl.PermissionLength(i.StreamKey), cn.XLen(ctx, i.StreamKey).Err()); err != nil {
		return err
	}
	// Redis rejects the id 0-0 after it has checked the permissions, and before it reads or creates the key.
	err = cn.XAdd(ctx, &goredis.XAddArgs{Stream: i.StreamKey, ID: "0-0", Values: []string{"ctl", ""}}).Err()
	if goredis.IsPermissionError(err) {
		i.missing(Warn, acl.PermissionAppend(i.StreamKey), err)
	} else if err != nil && !acl.IsReply(err) {
		return err
	}
	if readable {
		i.checkEntries(info)
	}
	return nil
}

// checkEntries checks the entries of the stream.
func (i *inspector) checkEntries(info *goredis.XInfoStream) {
	if info.Length == 0 {
		i.report.Note("redis-stream", "", "%s is empty: the app has not appended anything yet", i.StreamKey)
		return
	}
	i.report.OK("redis-stream", "%s has %d entries; the newest is %v old", i.StreamKey, info.Length, age(info.LastGeneratedID))
	if age := age(info.FirstEntry.ID); age > untrimmed {
		i.report.Note("redis-trim", "trim it in the app: XADD "+i.StreamKey+" MINID '~' <ms> '*' ch <channel> data <payload>, where <ms> is the time of the oldest entry to keep",
			"the oldest entry is %v old: the app does not seem to trim the stream", age)
	}
}

// age returns how long ago Redis assigned the id <ms>-<seq> by its clock.
func age(id string) time.Duration {
	ms, _, _ := strings.Cut(id, "-")
	n, _ := strconv.ParseInt(ms, 10, 64)
	return max(0, time.Since(time.UnixMilli(n)).Round(time.Second))
}
