package redis

import (
	"context"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/advice"
)

// untrimmed is the age of a stream's oldest entry from which on it looks as if nobody
// trimmed it.
const untrimmed = 24 * time.Hour

// log reads of the stream what a hub reads, an entry each time, and tells how it is.
func (i *inspector) log(ctx context.Context, cn *goredis.Conn) error {
	if i.version.below(6, 2) {
		i.tell.Fail("redis-version", "run Redis 6.2 or later, or Valkey", "this Redis has no XADD … MINID, with which apps trim the stream")
	} else if i.version.below(7, 0) {
		i.tell.Note("redis-version", "run Redis 7 or later, or Valkey", "before Redis 7 a stream has no counts: a hub that was away announces a loss when entries were trimmed, although it may have had them")
	}
	readable := true
	need := func(command string, err error) error {
		return optional(err, rightRead(command, i.StreamKey), func(r right, err error) {
			readable = false
			if goredis.IsPermissionError(err) {
				i.missing(advice.Fail, r, err)
				return
			}
			i.broken(&replyError{strings.ToUpper(strings.ReplaceAll(command, "|", " ")), err.Error()})
		})
	}
	info, err := newLogInfo(cn.XInfoStream(ctx, i.StreamKey).Result())
	if goredis.HasErrorPrefix(err, "WRONGTYPE") {
		i.tell.Fail("redis-type", "rename that key, or give another --stream-key", "%s is no stream", i.StreamKey)
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
	if err == goredis.Nil { // nothing came after the newest entry
		err = nil
	}
	if err := need("xread", err); err != nil {
		return err
	}
	if err := i.try(rightLength(i.StreamKey), cn.XLen(ctx, i.StreamKey).Err()); err != nil {
		return err
	}
	// The id 0-0 is refused before anything is looked at or made, but after the rights.
	err = cn.XAdd(ctx, &goredis.XAddArgs{Stream: i.StreamKey, ID: "0-0", Values: []string{"ctl", ""}}).Err()
	if goredis.IsPermissionError(err) {
		i.missing(advice.Warn, rightAppend(i.StreamKey), err)
	} else if err != nil && !isReply(err) {
		return err
	}
	if readable {
		i.stream(info)
	}
	return nil
}

// newLogInfo is logConn.state for go-redis.
func newLogInfo(x *goredis.XInfoStream, err error) (info logInfo, _ error) {
	if goredis.HasErrorPrefix(err, "no such key") {
		return logInfo{counts: true}, nil
	}
	if err != nil {
		return info, err
	}
	info.length, info.added = uint64(x.Length), uint64(x.EntriesAdded)
	if info.last, err = parseEntryID(x.LastGeneratedID); err != nil {
		return info, err
	}
	if x.Length > 0 {
		if info.first, err = parseEntryID(x.FirstEntry.ID); err != nil {
			return info, err
		}
	}
	if info.counts = x.MaxDeletedEntryID != ""; info.counts {
		info.deleted, err = parseEntryID(x.MaxDeletedEntryID)
	}
	return info, err
}

// stream tells what is in it.
func (i *inspector) stream(info logInfo) {
	if info.length == 0 {
		i.tell.Note("redis-stream", "", "%s has no entries: the app has appended nothing yet", i.StreamKey)
		return
	}
	i.tell.OK("redis-stream", "%s has %d entries, the newest %v old", i.StreamKey, info.length, info.last.age())
	if age := info.first.age(); age > untrimmed {
		i.tell.Note("redis-trim", "XADD "+i.StreamKey+" MINID '~' <ms> '*' ch … data …, with the time of the oldest entry to keep",
			"the oldest entry is %v old: does the app trim the stream?", age)
	}
}

// age is how long ago Redis gave the id, if it did so by its clock.
func (id EntryID) age() time.Duration {
	return max(0, time.Since(time.UnixMilli(int64(id.Ms))).Round(time.Second))
}
