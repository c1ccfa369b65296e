package redis

import (
	"context"
	"slices"
)

// entryCost is what an entry counts beside its text when it is held in memory.
const entryCost = 192

// load reads the newest entries, newest first, as far as the window goes. What is
// appended meanwhile comes after the cursor.
func (r *logReader) load(ctx context.Context) error {
	info, err := r.info(ctx)
	if err != nil {
		return err
	}
	var window []Entry // newest first
	var size int64
	whole := info.length == 0
	for end := info.last; info.length > 0 && size < r.cfg.WindowBytes; end = window[len(window)-1].ID.Before() {
		page, err := r.client.XRevRangeN(context.WithoutCancel(ctx), r.cfg.Key, end.String(), "-", readCount).Result()
		if err != nil {
			return err
		}
		entries, err := r.readAll(page)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if size += int64(len(e.User) + len(e.Topic) + len(e.Payload) + entryCost); size > r.cfg.WindowBytes {
				break
			}
			window = append(window, e)
		}
		if whole = len(page) < readCount && size <= r.cfg.WindowBytes; whole || len(window) == 0 {
			break
		}
	}
	slices.Reverse(window)
	floor := info.last
	if len(window) > 0 {
		floor = window[0].ID.Before()
	}
	if whole && info.counts && info.added == info.length {
		floor = EntryID{} // nothing was ever removed
	}
	r.cfg.Load(window, floor, info.last)
	r.loaded, r.cursor, r.index, r.primary = true, info.last, info.added, r.server
	_, err = r.found(ctx)
	return err
}
