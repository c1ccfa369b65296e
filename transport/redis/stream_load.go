package redis

import (
	"slices"

	"usercast/hub"
)

// load reads entries, newest first, until the window is full. Entries that are appended meanwhile are
// later than the cursor.
func (r *reader) load() error {
	startMs, err := r.startedAt()
	if err != nil {
		return err
	}
	info, err := r.conn.state()
	if err != nil {
		return err
	}
	var window []entry // newest first
	var size int64
	whole := info.length == 0
	for end := info.last; info.length > 0 && size < r.cfg.WindowBytes; end = window[len(window)-1].ID.Previous() {
		p, err := r.conn.read(end.String(), "-", true, min(pageBytes, r.cfg.WindowBytes-size), keepAll)
		if err != nil {
			return err
		}
		for _, e := range p.entries {
			if size += e.size(); size > r.cfg.WindowBytes {
				break
			}
			window = append(window, e)
		}
		if whole = !p.more && size <= r.cfg.WindowBytes; whole || len(window) == 0 {
			break
		}
	}
	slices.Reverse(window)
	after := info.last
	if len(window) > 0 {
		after = window[0].ID.Previous()
	}
	if whole && info.counts && info.added == info.length {
		after = hub.ID{} // no entry was ever removed
	}
	var fingerprint uint64
	if info.last != (hub.ID{}) {
		if fingerprint, err = r.conn.fingerprintAt(info.last); err != nil {
			return err
		}
	}
	// Nothing below can fail, so Load is called only once.
	r.cfg.Hub.Load(after, info.last, func(yield func(hub.Recipient, hub.Entry) bool) {
		for _, e := range window {
			if !yield(e.to, e.Entry) {
				return
			}
		}
	})
	r.loaded, r.cursor, r.fingerprint, r.index, r.primary = true, info.last, fingerprint, info.added, r.conn.server
	r.length, r.lengthKnown = info.length, true
	r.startMs, r.firstLoad = startMs, info.last
	r.skipped = idRange{hub.ID{Ms: startMs, Seq: maxSeq}, info.last}
	r.trail.begin(place{info.last, fingerprint})
	return nil
}
