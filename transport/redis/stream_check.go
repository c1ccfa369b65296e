package redis

import (
	"errors"
	"time"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// streamInfo is the reply to XINFO STREAM. All is 0 if the key does not exist.
type streamInfo struct {
	length      uint64
	first, last hub.ID // last: the newest id ever given
	deleted     hub.ID // the newest one that XDEL removed
	added       uint64 // entries ever added
	counts      bool   // added and deleted are known (Redis 7)
}

// starts is the first entry that is there, or what would come after the newest.
func (i streamInfo) starts(id hub.ID) bool { return i.length > 0 && id.Compare(i.first) >= 0 }

// replaced reports whether the stream is not the one that was read: it went backwards, or
// the key is another stream. Info is newer than the state of the cursor; batch
// are entries behind it. If the entry at the cursor is missing, primary is the server on
// this connection, as it is after that.
func (r *reader) replaced(at cursorState, primary topology.Identity, info streamInfo, batch []entry) bool {
	switch {
	case info.last.Compare(r.cursor) < 0, at == otherEntry:
		return true
	case info.counts && info.added < r.index+uint64(len(batch)):
		return true // Redis counts all that were ever added: it began again
	case at == sameEntry:
		return false
	case info.starts(r.cursor):
		// What is older is there, so ours was not trimmed. A promoted replica may lack it
		// and have got others since. XDEL may have removed it, too: where Redis does not say
		// (before 7), this counts only after an outage.
		if !info.counts {
			return info.last != r.cursor && len(batch) == 0
		}
		return info.last != r.cursor && info.deleted.Compare(r.cursor) < 0
	}
	// Ours was trimmed, and all before it: at least as many are gone. A count alone does not
	// identify them: another server may lack our newest entries and have had as many others
	// trimmed, which were never read.
	if info.last != r.cursor && !primary.SameData(r.primary) {
		return true
	}
	return info.counts && info.added-info.length < r.index
}

// stateEvery is the time between two requests for the state of an idle log. Redis sends its
// first and its last entry with it, however large they are.
const stateEvery = 30 * time.Second

// checkIdle checks a stream to which nothing was appended. A stream that was created again within the last
// entry's millisecond, or with lower ids, has another length, except by chance: the state is
// requested when the length is not as expected, and regularly.
func (r *reader) checkIdle() error {
	if r.lengthKnown && time.Since(r.stateAt) < stateEvery {
		n, err := r.conn.length()
		if err == nil && n == r.length {
			return nil
		}
		if err := acl.Optional(err, acl.PermissionLength(r.cfg.Key), r.missing); err != nil {
			return err
		}
	}
	info, err := r.conn.state()
	if err != nil {
		return err
	}
	r.stateAt = time.Now()
	// A stream that was created again within the millisecond of its last entry may end with the
	// same id. It has the same length only by chance.
	if info.last != r.cursor || info.counts && info.added != r.index {
		return r.compare()
	}
	return r.resolve(sameEntry, r.conn.server, info)
}

// compare compares the stream with what was read of it.
func (r *reader) compare() error {
	at, err := r.stateOfCursor() // before info: a stream loses entries, it does not get them back
	if err != nil {
		return err
	}
	info, err := r.conn.state()
	if err != nil {
		return err
	}
	primary, err := r.identify(at)
	if err != nil {
		return err
	}
	return r.resolve(at, primary, info)
}

// resolve announces if the stream was replaced, or if something was trimmed before it was read.
func (r *reader) resolve(at cursorState, primary topology.Identity, info streamInfo) error {
	switch {
	case r.replaced(at, primary, info, nil):
		return r.reset(info)
	case info.last == r.cursor:
		r.index = info.added // with those that XDEL removed before they were read
		r.primary = r.conn.server
		r.length, r.lengthKnown = info.length, true
	default:
		r.checkTrimmed(info, nil)
	}
	return nil
}

// errReset means that what was read is not to be handed over: Reset has gone past it.
var errReset = errors.New("stream was reset")

// check checks, before entries are handed over, whether some between the cursor and
// them were trimmed: not while the entry at the cursor is there, because a stream is
// trimmed from its beginning.
func (r *reader) check(entries []entry) error {
	at, err := r.stateOfCursor()
	if at == sameEntry || err != nil {
		return err
	}
	info, err := r.conn.state()
	if err != nil {
		return err
	}
	primary, err := r.identify(at)
	if err != nil {
		return err
	}
	if r.replaced(at, primary, info, entries) {
		if err := r.reset(info); err != nil {
			return err
		}
		return errReset
	}
	r.checkTrimmed(info, entries)
	return nil
}

// checkTrimmed announces it if entries later than the cursor were trimmed that are not among
// those that were read. What is no longer there, less what was added up to the cursor,
// was removed after it.
func (r *reader) checkTrimmed(info streamInfo, batch []entry) {
	if info.last == r.cursor || info.starts(r.cursor) {
		return
	}
	upTo := info.last
	if info.length > 0 {
		upTo = info.first.Previous()
	}
	gone := uint64(0) // of those that were read
	for _, e := range batch {
		if upTo.Compare(e.ID) < 0 {
			break
		}
		gone++
	}
	if len(batch) > 0 {
		upTo = batch[0].ID.Previous()
	}
	if !info.counts {
		r.lose(upTo)
		return
	}
	if n := len(batch); n > 0 && gone == uint64(n) && info.last != batch[n-1].ID {
		return // what is missing may have been behind them: the next check, from there, announces it
	}
	if removed := info.added - info.length; removed > r.index+gone {
		r.index = removed - gone
		r.lose(upTo)
	}
}

func (r *reader) lose(upTo hub.ID) {
	r.cfg.Hub.Lose(upTo)
	r.cursor, r.mark, r.primary = upTo, 0, r.conn.server
	r.lengthKnown = false
}

// identify returns the identity of the server on this connection. It is requested again if the
// entry at the cursor is missing: a server that became a replica during the connection has the
// entries of its primary.
func (r *reader) identify(at cursorState) (_ topology.Identity, err error) {
	if at == noEntry {
		err = r.conn.identify()
	}
	return r.conn.server, err
}

func (r *reader) reset(info streamInfo) error {
	if err := r.skipControl(info); err != nil {
		return err
	}
	r.cfg.Hub.Reset(info.last)
	r.cursor, r.mark, r.index, r.primary = info.last, 0, info.added, r.conn.server
	r.length, r.lengthKnown = info.length, true
	return nil
}

// cursorState is what is at the cursor, compared with what was read there.
type cursorState int

const (
	noEntry cursorState = iota
	sameEntry
	otherEntry
)

// stateOfCursor checks the entry at the cursor. One that was never read is taken for the
// same, and remembered.
func (r *reader) stateOfCursor() (cursorState, error) {
	if r.cursor == (hub.ID{}) {
		return noEntry, nil
	}
	mark, err := r.conn.markAt(r.cursor)
	if err != nil || mark == 0 {
		return noEntry, err
	}
	if r.mark != 0 && r.mark != mark {
		return otherEntry, nil
	}
	r.mark, r.primary = mark, r.conn.server
	return sameEntry, nil
}
