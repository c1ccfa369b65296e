package redis

import (
	"errors"
	"time"
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

// stateEvery is the time between two requests for the state of an idle log. Redis sends its
// first and its last entry with it, however large they are.
const stateEvery = 30 * time.Second

func rightLength(key string) right {
	return right{"XLEN " + key, "+xlen ~" + globEscaper.Replace(key), "while nothing is appended, the first and the last entry are read every few seconds"}
}

// idle looks at a log from which nothing new came. A log that was made anew within the last
// entry's millisecond, or with lower ids, has another length, except by chance: the state is
// requested when the length is not as expected, and from time to time.
func (r *logReader) idle() error {
	if r.lengthKnown && time.Since(r.stateAt) < stateEvery {
		n, err := r.conn.length()
		if err == nil && n == r.length {
			return nil
		}
		if err := optional(err, rightLength(r.cfg.Key), r.missing); err != nil {
			return err
		}
	}
	info, err := r.conn.state()
	if err != nil {
		return err
	}
	r.stateAt = time.Now()
	// A log that was made anew within the millisecond of its last entry may end with the
	// same id. It is as long as ours only by chance.
	if info.last != r.cursor || info.counts && info.added != r.index {
		return r.look()
	}
	return r.settle(same, r.conn.server, info)
}

// look compares the log with what was read of it.
func (r *logReader) look() error {
	there, err := r.found() // before info: a stream loses entries, it gets none back
	if err != nil {
		return err
	}
	info, err := r.conn.state()
	if err != nil {
		return err
	}
	primary, err := r.identify(there)
	if err != nil {
		return err
	}
	return r.settle(there, primary, info)
}

// settle says if the log was replaced, or if something was trimmed before it was read.
func (r *logReader) settle(there finding, primary identity, info logInfo) error {
	switch {
	case r.replaced(there, primary, info, nil):
		return r.reset(info)
	case info.last == r.cursor:
		r.index = info.added // with those that XDEL took before they were read
		r.primary = r.conn.server
		r.length, r.lengthKnown = info.length, true
	default:
		r.trimmed(info, nil)
	}
	return nil
}

// errReset says that what was read is not to be handed over: Reset has gone past it.
var errReset = errors.New("the log was replaced")

// check looks, before entries are handed over, whether some between the cursor and
// them were trimmed: not while the entry at the cursor is there, for a stream is
// trimmed from its beginning.
func (r *logReader) check(entries []Entry) error {
	there, err := r.found()
	if there == same || err != nil {
		return err
	}
	info, err := r.conn.state()
	if err != nil {
		return err
	}
	primary, err := r.identify(there)
	if err != nil {
		return err
	}
	if r.replaced(there, primary, info, entries) {
		if err := r.reset(info); err != nil {
			return err
		}
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
	r.cursor, r.mark, r.primary = upTo, 0, r.conn.server
	r.lengthKnown = false
}

// identify returns the identity of the server on this connection. It is asked again if the
// entry at the cursor is missing: a server that became a replica during the connection has the
// entries of its primary.
func (r *logReader) identify(there finding) (_ identity, err error) {
	if there == missing {
		err = r.conn.identify()
	}
	return r.conn.server, err
}

func (r *logReader) reset(info logInfo) error {
	if err := r.passOver(info); err != nil {
		return err
	}
	r.cfg.Reset(info.last)
	r.cursor, r.mark, r.index, r.primary = info.last, 0, info.added, r.conn.server
	r.length, r.lengthKnown = info.length, true
	return nil
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
func (r *logReader) found() (finding, error) {
	if r.cursor == (EntryID{}) {
		return missing, nil
	}
	mark, err := r.conn.markAt(r.cursor)
	if err != nil || mark == 0 {
		return missing, err
	}
	if r.mark != 0 && r.mark != mark {
		return another, nil
	}
	r.mark, r.primary = mark, r.conn.server
	return same, nil
}
