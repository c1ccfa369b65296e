package redis

import (
	"math"
	"sort"
	"strconv"
	"time"
)

// Control commands take effect although the entries around them become a gap, or were loaded as
// old ones: a logout must not be lost. After the first load and after each reset the reader
// goes through the entries that it passed over, and acts on the commands that were appended
// after the log was started and that it has not acted on.

const (
	// maxTrail is the number of places that are remembered. When there are as many, every second
	// one of the older half is dropped: the further back, the fewer.
	maxTrail = 256
	// trailEvery is the time between two places that are not commands.
	trailEvery = time.Second

	maxSeq = math.MaxUint64
)

// place is an entry that was read.
type place struct {
	id   EntryID
	mark uint64
}

// trail is places in the order in which they were read: each control command that was acted on,
// and one entry per second. It shows how far a log that replaced the one that was read is
// the same.
type trail struct {
	places []place
	last   time.Time
}

// begin forgets all places but one.
func (t *trail) begin(p place) { t.places, t.last = []place{p}, time.Now() }

// add remembers an entry: each control command, and of the others one per second.
func (t *trail) add(e Entry) {
	now := time.Now()
	if e.order == "" && now.Sub(t.last) < trailEvery {
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
	t.places = append(t.places, place{e.ID, e.mark})
}

// idRange is the ids later than after, up to upTo.
type idRange struct{ after, upTo EntryID }

// startedAt returns the time in ms at which Run was called, by the clock of the server, which
// gives the ids; by the local clock if the server does not tell. It is late by at most the time
// that the answer took, and never early: commands from before the start are not acted on.
func (r *logReader) startedAt() (ms uint64, err error) {
	now := time.Now()
	up := now.Sub(r.began)
	text, err := r.conn.info("server")
	if err := optional(err, rightInfo, r.missing); err != nil {
		return 0, err
	}
	if us, err := strconv.ParseInt(infoField(text, "server_time_usec"), 10, 64); err == nil {
		now = time.UnixMicro(us)
	}
	return uint64(max(0, now.Add(-up).UnixMilli())), nil
}

// appendedLater reports whether an entry was appended after Run was called. An entry of the same
// millisecond is taken for older.
func (l *Log) appendedLater(id EntryID) bool { return l.firstLoad.before(id) || id.Ms > l.startMs }

// inCommon returns the newest place that the log still has, and which everything before is the
// same to. Places that were trimmed count as such: all that the log has is later.
func (r *logReader) inCommon(first EntryID) (n int, err error) {
	places := r.trail.places
	n = sort.Search(len(places), func(i int) bool { // whether the log differs there
		if err != nil || places[i].id.before(first) {
			return err != nil
		}
		var mark uint64
		mark, err = r.conn.markAt(places[i].id)
		return mark == 0 || mark != places[i].mark
	})
	return n, err
}

// passOver notes that the entries of a log that replaced the one that was read are not handed
// over, up to its newest. It is for a reset.
func (r *logReader) passOver(info logInfo) error {
	n, err := r.inCommon(info.first)
	if err != nil {
		return err
	}
	after := r.firstLoad // or the start, if that is earlier: see appendedLater
	if start := (EntryID{r.startMs, maxSeq}); start.before(after) {
		after = start
	}
	if n > 0 && after.before(r.trail.places[n-1].id) {
		after = r.trail.places[n-1].id
	}
	r.trail.places = r.trail.places[:n]
	if left := r.passed; left.after.before(left.upTo) && left.after.before(after) {
		after = left.after // not all of what was passed over before was looked at
	}
	r.passed = idRange{after, info.last}
	return nil
}

// control acts on the commands among the entries that were passed over. After an error it
// continues where it was.
func (r *logReader) control() error {
	for r.passed.after.before(r.passed.upTo) {
		p, err := r.conn.read(r.passed.after.next().String(), r.passed.upTo.String(), false, pageBytes, keepCommands)
		if err != nil {
			return err
		}
		for _, e := range p.entries {
			if e.order != "" && r.appendedLater(e.ID) {
				r.obey(e)
				r.trail.add(e)
			}
			r.passed.after = e.ID
		}
		if !p.more {
			break
		}
	}
	r.passed = idRange{}
	return nil
}

// obey acts on a control command.
func (l *Log) obey(e Entry) {
	l.count.controlReceived.Add(1)
	order, err := ParseControl(e.order)
	if err != nil {
		l.count.controlMalformed.Add(1)
		l.report.malformedOrder(err)
		return
	}
	l.cfg.Control(order)
}
