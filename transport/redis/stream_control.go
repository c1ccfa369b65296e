package redis

import (
	"math"
	"sort"
	"strconv"
	"time"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/topology"
)

// A logout must not be lost, so control commands take effect even if the entries around them become
// a gap or were loaded as history. After the first load and after each reset, the reader reads the
// entries that it skipped. It handles those commands that were appended after the feed was started
// and that it has not handled yet.

const (
	// maxTrail is the maximum number of places in a trail. When it is reached, every other place of
	// the older half is dropped.
	maxTrail = 256
	// trailEvery is the minimum time between two places that are not commands.
	trailEvery = time.Second

	maxSeq = math.MaxUint64
)

// place is an entry that was read.
type place struct {
	id          hub.ID
	fingerprint uint64
}

// trail is a list of places in the order in which they were read: each control command that was
// handled, and one entry per second. After the stream was replaced, it shows up to which place the
// new stream equals the old one.
type trail struct {
	places []place
	last   time.Time
}

// begin resets the trail to one place.
func (t *trail) begin(p place) { t.places, t.last = []place{p}, time.Now() }

// add adds an entry: each control command, and one of the others per second.
func (t *trail) add(e entry) {
	now := time.Now()
	if e.command == "" && now.Sub(t.last) < trailEvery {
		return
	}
	if t.last = now; len(t.places) == maxTrail {
		thin := t.places[:0]
		for i, p := range t.places {
			if i >= maxTrail/2 || i%2 == 0 {
				thin = append(thin, p)
			}
		}
		t.places = thin
	}
	t.places = append(t.places, place{e.ID, e.fingerprint})
}

// idRange contains the ids later than after, up to and including upTo.
type idRange struct{ after, upTo hub.ID }

// startedAt returns the time in ms at which Run was called, by the clock of the server, which assigns
// the ids. If the server does not return its time, the local clock is used. The result may be early
// by the time that the reply took, but is never late: a command from shortly before the start costs a
// reconnect, whereas a skipped command would be a lost logout.
func (r *reader) startedAt() (ms uint64, err error) {
	text, err := r.conn.info("server")
	if err := acl.Optional(err, acl.PermissionInfo, r.missing); err != nil {
		return 0, err
	}
	now := time.Now()
	up := now.Sub(r.began)
	if us, err := strconv.ParseInt(topology.InfoField(text, "server_time_usec"), 10, 64); err == nil {
		now = time.UnixMicro(us)
	}
	return uint64(max(0, now.Add(-up).UnixMilli())), nil
}

// appendedLater reports whether an entry was appended after Run was called. An entry from the same
// millisecond counts as older.
func (f *StreamFeed) appendedLater(id hub.ID) bool {
	return f.firstLoad.Compare(id) < 0 || id.Ms > f.startMs
}

// inCommon returns how many places of the trail the stream still has in common. Trimmed places count,
// because everything in the stream is later.
func (r *reader) inCommon(first hub.ID) (n int, err error) {
	places := r.trail.places
	n = sort.Search(len(places), func(i int) bool { // reports whether the stream differs at this place
		if err != nil || places[i].id.Compare(first) < 0 {
			return err != nil
		}
		var fingerprint uint64
		fingerprint, err = r.conn.fingerprintAt(places[i].id)
		return fingerprint == 0 || fingerprint != places[i].fingerprint
	})
	return n, err
}

// skipControl records for a reset that the entries of the new stream are not delivered, up to the
// newest one.
func (r *reader) skipControl(info streamInfo) error {
	n, err := r.inCommon(info.first)
	if err != nil {
		return err
	}
	after := r.firstLoad // or the time of the start, if that is earlier: see appendedLater
	if start := (hub.ID{Ms: r.startMs, Seq: maxSeq}); start.Compare(after) < 0 {
		after = start
	}
	if n > 0 && after.Compare(r.trail.places[n-1].id) < 0 {
		after = r.trail.places[n-1].id
	}
	r.trail.places = r.trail.places[:n]
	if left := r.skipped; left.after.Compare(left.upTo) < 0 && left.after.Compare(after) < 0 {
		after = left.after // some entries that were skipped earlier are still unread
	}
	r.skipped = idRange{after, info.last}
	return nil
}

// handleSkippedControl handles the commands among the skipped entries. After an error, the next call
// continues at the same place.
func (r *reader) handleSkippedControl() error {
	for r.skipped.after.Compare(r.skipped.upTo) < 0 {
		p, err := r.conn.read(nextID(r.skipped.after).String(), r.skipped.upTo.String(), false, pageBytes, keepCommands)
		if err != nil {
			return err
		}
		for _, e := range p.entries {
			if e.command != "" && r.appendedLater(e.ID) {
				command, err := ParseControl(e.command)
				r.handleControl(command, err, r.cfg.Control)
				r.trail.add(e)
			}
			r.skipped.after = e.ID
		}
		if !p.more {
			break
		}
	}
	r.skipped = idRange{}
	return nil
}
