package redis

import (
	"sync"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// The stream is trimmed page by page, as fast as it is read. Either all comes, or all
// up to some entry and then an error.
func TestStreamThatIsTrimmedWhileItIsScannedLeavesNoHole(t *testing.T) {
	server := redistest.Start(t)
	f := follow(t, parsed(t, server.URL()), func(c *LogConfig) { c.WindowBytes = 1000 })
	for try := range 20 {
		server.Do("DEL", "log")
		server.Do("EVAL", `for i = 0, 9999 do redis.call("XADD", KEYS[1], (1000 + i) .. "-0", "ch", "user-42", "data", i) end return 1`, 1, "log")
		var wg sync.WaitGroup
		var entries []Entry
		var err error
		wg.Go(func() {
			for at, end := (EntryID{1000, 0}), (EntryID{10999, 0}); err == nil && at.before(end); {
				r := f.askFor("42", at, end)
				entries, at, err = append(entries, r.entries...), r.covered, r.err
			}
		})
		for i := range 50 {
			server.Do("XTRIM", "log", "MAXLEN", 10000-(i+1)*200)
			time.Sleep(200 * time.Microsecond)
		}
		wg.Wait()
		for i, e := range entries {
			if e.ID.Ms != 1001+uint64(i) {
				t.Fatalf("try %d: after %d entries %v comes (%v)", try, i, e.ID, err)
			}
		}
		if err == nil && len(entries) != 9999 {
			t.Fatalf("try %d: %d entries, no error", try, len(entries))
		}
	}
}

// An entry that XDEL takes, wherever a page ends, keeps no query from its answer.
func TestStreamThatLosesSingleEntriesIsScanned(t *testing.T) {
	server := redistest.Start(t)
	server.Do("EVAL", `for i = 0, 3999 do redis.call("XADD", KEYS[1], (1000 + i) .. "-0", "ch", "user-42", "data", i) end return 1`, 1, "log")
	f := follow(t, parsed(t, server.URL()), func(c *LogConfig) { c.WindowBytes = 1000 })
	end := EntryID{4999, 0}
	var wg sync.WaitGroup
	wg.Go(func() {
		for ms := 1001; ms < 4000; ms++ {
			server.Do("XDEL", "log", EntryID{uint64(ms), 0}.String())
		}
	})
	for range 20 {
		for at := (EntryID{}); at.before(end); {
			r := f.askFor("7", at, end)
			if at != (EntryID{}) && r.err != nil {
				t.Fatalf("after %v: %v", at, r.err)
			}
			if r.err != nil { // no longer whole: from the first entry on
				r.covered = EntryID{1000, 0}
			}
			at = r.covered
		}
	}
	wg.Wait()

	// The beginning of a stream that has lost nothing, and of none.
	for range 2 {
		server.Do("DEL", "log")
		if r := f.askFor("7", EntryID{}, end); r.err != nil || r.covered != end {
			t.Errorf("of no stream: %+v", r)
		}
		server.Do("XADD", "log", "5-0", "ch", "user-7", "data", "x")
		if r := f.askFor("7", EntryID{}, end); r.err != nil || len(r.entries) != 1 {
			t.Errorf("of a whole stream: %+v", r)
		}
	}
}
