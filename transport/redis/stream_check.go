package redis

import (
	"errors"
	"time"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// streamInfo is the reply to XINFO STREAM. All fields are zero if the key does not exist.
type streamInfo struct {
	length      uint64
	first, last hub.ID // last: the newest id ever assigned
	deleted     hub.ID // the newest id that XDEL removed
	added       uint64 // entries ever added
	counts      bool   // added and deleted are known (Redis 7)
}

// startsBefore reports whether the stream has entries and the oldest one is at id or before it.
func (i streamInfo) startsBefore(id hub.ID) bool { return i.length > 0 && id.Compare(i.first) >= 0 }

// replaced reports whether the stream is not the one that was read: it went backwards, or the key is
// another stream. at is the state of the cursor, info was requested after it, and batch contains
// entries after the cursor. If the entry at the cursor is missing, primary is the server on this
// connection, identified after that.
func (r *reader) replaced(at cursorState, primary topology.Identity, info streamInfo, batch []entry) bool {
	switch {
	case info.last.Compare(r.cursor) < 0, at == otherEntry:
		return true
	case info.counts && info.added < r.index+uint64(len(batch)):
		return true // fewer entries were ever added than were read: the stream was created again
	case at == sameEntry:
		return false
	case info.startsBefore(r.cursor):
		// Older entries exist, so the entry at the cursor was not trimmed. Either a promoted replica
		// never had it and has received others since, or XDEL removed it. Before Redis 7, these cases
		// cannot be distinguished: then it is a reset only after an outage.
		if !info.counts {
			return info.last != r.cursor && len(batch) == 0
		}
		return info.last != r.cursor && info.deleted.Compare(r.cursor) < 0
	}
	// The entry at the cursor was trimmed, and all before it: at least as many are gone. The count
	// alone does not identify them: another server may never have had our newest entries, and may
	// have trimmed as many others that were never read.
	if info.last != r.cursor && !primary.SameData(r.primary) {
		return true
	}
	return info.counts && info.added-info.length < r.index
}

// stateEvery is the time between two requests for the state of an idle stream. The reply is not
// requested more often because it contains the first and the last entry, however large they are.
const stateEvery = 30 * time.Second

// checkIdle checks a stream to which nothing was appended. If the stream was created again within the
// millisecond of the last entry, or with lower ids, its length differs, except by chance. So the
// state is requested when the length is not as expected, and regularly.
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
	// A stream that was created again within the millisecond of its last entry may end with the same
	// id. So the count is compared as well, which is the same only by chance.
	if info.last != r.cursor || info.counts && info.added != r.index {
		return r.compare()
	}
	return r.resolve(sameEntry, r.conn.server, info)
}

// compare compares the stream with the entries that were read.
func (r *reader) compare() error {
	at, err := r.stateOfCursor() // before info: an entry may be removed between the two requests, but not restored
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

// resolve announces a reset if the stream was replaced, or a loss if entries were trimmed before they
// were read.
func (r *reader) resolve(at cursorState, primary topology.Identity, info streamInfo) error {
	switch {
	case r.replaced(at, primary, info, nil):
		return r.reset(info)
	case info.last == r.cursor:
		r.index = info.added // includes entries that XDEL removed before they were read
		r.primary = r.conn.server
		r.length, r.lengthKnown = info.length, true
	default:
		r.checkTrimmed(info, nil)
	}
	return nil
}

// errReset means that entries that were read must not be delivered: Reset has moved past them.
var errReset = errors.New("stream was reset")

// check checks, before entries are delivered, whether others between the cursor and them were
// trimmed. This is impossible while the entry at the cursor exists, because a stream is trimmed
// from its beginning.
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

// checkTrimmed announces a loss if entries after the cursor were trimmed before they were read. The
// number of removed entries, minus the number added up to the cursor, is the number that was
// removed after the cursor.
func (r *reader) checkTrimmed(info streamInfo, batch []entry) {
	if info.last == r.cursor || info.startsBefore(r.cursor) {
		return
	}
	upTo := info.last
	if info.length > 0 {
		upTo = info.first.Previous()
	}
	gone := uint64(0) // entries of the batch that were trimmed after they were read
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
		return // the missing entries may be later than the batch: then the next check announces them
	}
	if removed := info.added - info.length; removed > r.index+gone {
		r.index = removed - gone
		r.lose(upTo)
	}
}

func (r *reader) lose(upTo hub.ID) {
	r.cfg.Hub.Lose(upTo)
	r.cursor, r.fingerprint, r.primary = upTo, 0, r.conn.server
	r.lengthKnown = false
}

// identify returns the identity of the server on this connection. It requests the identity again if
// the entry at the cursor is missing: a server that became a replica during the connection has
// the entries of its primary.
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
	r.cursor, r.fingerprint, r.index, r.primary = info.last, 0, info.added, r.conn.server
	r.length, r.lengthKnown = info.length, true
	return nil
}

// cursorState compares the entry at the cursor with the one that was read there.
type cursorState int

const (
	noEntry cursorState = iota
	sameEntry
	otherEntry
)

// stateOfCursor checks the entry at the cursor. If no entry was read there, it assumes that the entry
// is the same and remembers it.
func (r *reader) stateOfCursor() (cursorState, error) {
	if r.cursor == (hub.ID{}) {
		return noEntry, nil
	}
	fingerprint, err := r.conn.fingerprintAt(r.cursor)
	if err != nil || fingerprint == 0 {
		return noEntry, err
	}
	if r.fingerprint != 0 && r.fingerprint != fingerprint {
		return otherEntry, nil
	}
	r.fingerprint, r.primary = fingerprint, r.conn.server
	return sameEntry, nil
}
