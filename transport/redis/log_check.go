package redis

import (
	"context"
	"errors"

	goredis "github.com/redis/go-redis/v9"
)

// logInfo is what XINFO STREAM says, in our words. A key that is missing has none
// of it.
type logInfo struct {
	length      uint64
	first, last EntryID // last: the newest id ever given
	deleted     EntryID // the newest that XDEL took
	added       uint64  // entries ever added
	counts      bool    // added and deleted are known (Redis 7)
}

func (r *logReader) info(ctx context.Context) (info logInfo, err error) {
	return newLogInfo(r.client.XInfoStream(context.WithoutCancel(ctx), r.cfg.Key).Result())
}

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

// starts is the first entry that is there, or what would come after the newest.
func (i logInfo) starts(id EntryID) bool { return i.length > 0 && !id.before(i.first) }

// replaced reports whether the log is not the one that was read: it went backwards, or
// another stands under the same key. Info is from after the look at the cursor; read
// are entries behind it. If the entry at the cursor is missing, primary is the server that
// was asked, as it is after that.
func (r *logReader) replaced(there finding, primary identity, info logInfo, read []Entry) bool {
	switch {
	case info.last.before(r.cursor), there == another:
		return true
	case info.counts && info.added < r.index+uint64(len(read)):
		return true // Redis counts all that were ever added: it began anew
	case there == same:
		return false
	case info.starts(r.cursor):
		// What is older is there, so ours was not trimmed. A promoted replica may lack it
		// and have got others since. XDEL may have taken it, too: where Redis does not say
		// (before 7) only a log that was out of sight is suspected.
		if !info.counts {
			return info.last != r.cursor && len(read) == 0
		}
		return info.last != r.cursor && info.deleted.before(r.cursor)
	}
	// Ours was trimmed, and all before it: at least as many are gone. A count alone does not
	// identify them: another server may lack our newest entries and have had as many others
	// trimmed, which were never read.
	if info.last != r.cursor && !primary.sameData(r.primary) {
		return true
	}
	return info.counts && info.added-info.length < r.index
}

// idle looks at a log from which nothing new came.
func (r *logReader) idle(ctx context.Context) error {
	info, err := r.info(ctx)
	if err != nil {
		return err
	}
	// A log that was made anew within the millisecond of its last entry may end with the
	// same id. It is as long as ours only by chance.
	if info.last != r.cursor || info.counts && info.added != r.index {
		return r.look(ctx)
	}
	r.settle(same, r.primary, info)
	return nil
}

// look compares the log with what was read of it.
func (r *logReader) look(ctx context.Context) error {
	there, err := r.found(ctx) // before info: a stream loses entries, it gets none back
	if err != nil {
		return err
	}
	info, err := r.info(ctx)
	if err != nil {
		return err
	}
	primary, err := r.identify(ctx, there)
	if err != nil {
		return err
	}
	r.settle(there, primary, info)
	return nil
}

// settle says if the log was replaced, or if something was trimmed before it was read.
func (r *logReader) settle(there finding, primary identity, info logInfo) {
	switch {
	case r.replaced(there, primary, info, nil):
		r.reset(info)
	case info.last == r.cursor:
		r.index = info.added // with those that XDEL took before they were read
		r.primary = r.server
	default:
		r.trimmed(info, nil)
	}
}

// errReset says that what was read is not to be handed over: Reset has gone past it.
var errReset = errors.New("the log was replaced")

// check looks, before entries are handed over, whether some between the cursor and
// them were trimmed: not while the entry at the cursor is there, for a stream is
// trimmed from its beginning.
func (r *logReader) check(ctx context.Context, entries []Entry) error {
	there, err := r.found(ctx)
	if there == same || err != nil {
		return err
	}
	info, err := r.info(ctx)
	if err != nil {
		return err
	}
	primary, err := r.identify(ctx, there)
	if err != nil {
		return err
	}
	if r.replaced(there, primary, info, entries) {
		r.reset(info)
		return errReset
	}
	r.trimmed(info, entries)
	return nil
}

// trimmed says so if entries later than the cursor were trimmed that are not among
// those that were read. What is no longer there, less what was added up to the cursor,
// was removed after it.
func (r *logReader) trimmed(info logInfo, read []Entry) {
	if info.last == r.cursor || info.starts(r.cursor) {
		return
	}
	upTo := info.last
	if info.length > 0 {
		upTo = info.first.Before()
	}
	gone := uint64(0) // of those that were read
	for _, e := range read {
		if upTo.before(e.ID) {
			break
		}
		gone++
	}
	if len(read) > 0 {
		upTo = read[0].ID.Before()
	}
	if !info.counts {
		r.lost(upTo)
		return
	}
	if n := len(read); n > 0 && gone == uint64(n) && info.last != read[n-1].ID {
		return // what is missing may have been behind them: the next look, from there, says so
	}
	if removed := info.added - info.length; removed > r.index+gone {
		r.index = removed - gone
		r.lost(upTo)
	}
}

func (r *logReader) lost(upTo EntryID) {
	r.cfg.Lost(upTo)
	r.cursor, r.mark, r.primary = upTo, 0, r.server
}

// identify returns the identity of the server on this connection. It is asked again if the
// entry at the cursor is missing: a server that became a replica during the connection has the
// entries of its primary.
func (r *logReader) identify(ctx context.Context, there finding) (_ identity, err error) {
	if there == missing {
		r.server, err = identify(context.WithoutCancel(ctx), r.client, r.missing)
		r.named()
	}
	return r.server, err
}

// named gives a server that does not say who it is an identity for this connection only.
func (r *logReader) named() {
	if r.server.runID == "" {
		r.server.data = r.token
	}
}

func (r *logReader) reset(info logInfo) {
	r.cfg.Reset(info.last)
	r.cursor, r.mark, r.index, r.primary = info.last, 0, info.added, r.server
}

// What is at the cursor, next to what was read there.
type finding int

const (
	missing finding = iota
	same
	another
)

// found looks at the entry at the cursor. One that was never read is taken for the
// same, and remembered.
func (r *logReader) found(ctx context.Context) (finding, error) {
	if r.cursor == (EntryID{}) {
		return missing, nil
	}
	list, err := r.client.XRangeN(context.WithoutCancel(ctx), r.cfg.Key, r.cursor.String(), r.cursor.String(), 1).Result()
	if err != nil || len(list) == 0 {
		return missing, err
	}
	mark := markOf(list[0].Values)
	if r.mark != 0 && r.mark != mark {
		return another, nil
	}
	r.mark, r.primary = mark, r.server
	return same, nil
}
