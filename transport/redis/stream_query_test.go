package redis

import (
	"log/slog"
	"sync"
	"sync/atomic"
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

// Browsers that begin far back do not keep those waiting that do not.
func TestQueriesAreAnsweredInTurn(t *testing.T) {
	server := redistest.Start(t)
	server.Do("EVAL", `for i = 0, 29999 do redis.call("XADD", KEYS[1], (1000 + i) .. "-0", "ch", "user-7", "data", "x") end return 1`, 1, "log")
	f := follow(t, parsed(t, server.URL()), func(c *LogConfig) { c.WindowBytes = 1000 })
	begin, end := EntryID{1000, 0}, EntryID{30999, 0}
	var others atomic.Int32
	var stop atomic.Bool
	var again func()
	again = func() { // in each pass somebody else comes with the oldest id
		f.Ask(Query{User: "42", After: begin, UpTo: end, Answer: func([]Entry, EntryID, error) {
			if others.Add(1); !stop.Load() {
				again()
			}
		}})
	}
	again()
	before := others.Load()
	if r := f.askFor("42", EntryID{30000, 0}, end); r.err != nil || r.covered != end {
		t.Errorf("%+v", r)
	}
	stop.Store(true)
	if n := others.Load() - before; n > 5 {
		t.Errorf("answered after %d others", n)
	}
}

// However many wait, each is answered, once; unless nobody waits for the answer.
func TestQueryOfAClientThatIsGoneIsDropped(t *testing.T) {
	server := durable(t)
	server.Do("EVAL", `for i = 1, 1000 do redis.call("XADD", KEYS[1], i .. "-0", "ch", "user-7", "data", "x") end return 1`, 1, "log")
	f := follow(t, parsed(t, server.URL()), func(c *LogConfig) { c.WindowBytes = 1000 })
	server.Kill()
	var gone atomic.Int32
	var wg sync.WaitGroup
	for i := range 3 * scanQueries {
		q := Query{User: "7", After: EntryID{uint64(1 + i), 0}, UpTo: EntryID{1000, 0}}
		if i%2 == 0 {
			q.Gone = func() bool { return true }
			q.Answer = func([]Entry, EntryID, error) { gone.Add(1) }
		} else {
			wg.Add(1)
			q.Gone = func() bool { return false }
			q.Answer = func(list []Entry, covered EntryID, err error) {
				if err != nil || len(list) != 999-i || covered != q.UpTo {
					t.Errorf("after %v: %d entries up to %v, %v", q.After, len(list), covered, err)
				}
				wg.Done()
			}
		}
		f.Ask(q)
	}
	server.Restart()
	wg.Wait()
	if n := gone.Load(); n > 0 {
		t.Errorf("%d were answered in vain", n)
	}
}

// A fault that keeps queries waiting is said once, as what it is, and again when it
// comes back.
func TestFaultOfAScanIsSaidOnce(t *testing.T) {
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "&*")
	log := &logbook{}
	f := follow(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), func(c *LogConfig) { c.Log = slog.New(log) })
	id, err := parseEntryID(xadd(server, "user-42", "x"))
	if err != nil {
		t.Fatal(err)
	}
	f.want(t, "42: x")
	for range 2 {
		server.Do("ACL", "SETUSER", "app", "-xrange")
		refused := callsOf(t, server, "xrange") + 3
		c := make(chan error, 1)
		f.Ask(Query{User: "42", After: id, UpTo: id, Answer: func(_ []Entry, _ EntryID, err error) { c <- err }})
		f.await(t, "three tries", func() bool { return callsOf(t, server, "xrange") >= refused })
		log.once(t, "WARN redis scan failed", "reason=right", "user app may not read log", "+xrange")
		server.Do("ACL", "SETUSER", "app", "+xrange")
		if err := <-c; err != nil {
			t.Error(err)
		}
		log.mu.Lock()
		log.lines = nil
		log.mu.Unlock()
	}
	server.Do("SET", "log", "text")
	f.Ask(Query{User: "42", After: id, UpTo: id, Answer: func([]Entry, EntryID, error) {}})
	log.await(t, "WARN redis scan failed", "reason=type", "log is no stream")
	log.await(t, "WARN redis subscription lost", "reason=type", "log is no stream")
}
