package redis

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
)

// The stream is trimmed while it is read. Then either all entries are returned, or all up to some entry and then a
// gap.
func TestStreamTrimmedDuringAScanHasNoHole(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes = 1000 })
	for try := range 10 {
		server.Do("DEL", "log")
		server.Do("EVAL", `for i = 0, 9999 do redis.call("XADD", KEYS[1], (1000 + i) .. "-0", "ch", "user-42", "data", i) end return 1`, 1, "log")
		var wg sync.WaitGroup
		var entries []hub.Entry
		var gap hub.Gap
		wg.Go(func() {
			for at, end := (hub.ID{Ms: 1000, Seq: 0}), (hub.ID{Ms: 10999, Seq: 0}); gap == 0 && at.Compare(end) < 0; {
				r := f.askFor("42", at, end)
				entries, at, gap = append(entries, r.entries...), r.covered, r.gap
			}
		})
		for i := range 50 {
			server.Do("XTRIM", "log", "MAXLEN", 10000-(i+1)*200)
			time.Sleep(200 * time.Microsecond)
		}
		wg.Wait()
		for i, e := range entries {
			if e.ID.Ms != 1001+uint64(i) {
				t.Fatalf("try %d: after %d entries %v comes (%v)", try, i, e.ID, gap)
			}
		}
		if gap == 0 && len(entries) != 9999 {
			t.Fatalf("try %d: %d entries, no gap", try, len(entries))
		}
	}
}

// An entry that XDEL removes, even at the end of a page, does not prevent an answer.
func TestStreamThatLosesSingleEntriesIsScanned(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("EVAL", `for i = 0, 3999 do redis.call("XADD", KEYS[1], (1000 + i) .. "-0", "ch", "user-42", "data", i) end return 1`, 1, "log")
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes = 1000 })
	end := hub.ID{Ms: 4999, Seq: 0}
	var wg sync.WaitGroup
	wg.Go(func() {
		for ms := uint64(1001); ms < 4000; ms += 10 {
			args := []any{"XDEL", "log"}
			for n := range uint64(10) {
				args = append(args, hub.ID{Ms: ms + n}.String())
			}
			server.Do(args...)
		}
	})
	for range 20 {
		for at := (hub.ID{}); at.Compare(end) < 0; {
			r := f.askFor("7", at, end)
			if at != (hub.ID{}) && r.gap != 0 {
				t.Fatalf("after %v: %v", at, r.gap)
			}
			if r.gap != 0 { // entries are missing at the beginning: start from the first entry
				r.covered = hub.ID{Ms: 1000, Seq: 0}
			}
			at = r.covered
		}
	}
	wg.Wait()

	// The beginning of a complete stream, and of a missing one.
	for range 2 {
		server.Do("DEL", "log")
		if r := f.askFor("7", hub.ID{}, end); r.gap != 0 || r.covered != end {
			t.Errorf("of no stream: %+v", r)
		}
		server.Do("XADD", "log", "5-0", "ch", "user-7", "data", "x")
		if r := f.askFor("7", hub.ID{}, end); r.gap != 0 || len(r.entries) != 1 {
			t.Errorf("of a whole stream: %+v", r)
		}
	}
}

// Queries that begin early in the stream do not delay others forever.
func TestQueriesAreAnsweredInTurn(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("EVAL", `for i = 0, 29999 do redis.call("XADD", KEYS[1], (1000 + i) .. "-0", "ch", "user-7", "data", "x") end return 1`, 1, "log")
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes = 1000 })
	begin, end := hub.ID{Ms: 1000, Seq: 0}, hub.ID{Ms: 30999, Seq: 0}
	var others atomic.Int32
	var stop atomic.Bool
	var again func()
	again = func() { // for each pass, another query with the oldest id is added
		f.add(query{[]hub.Recipient{hub.User("42")}, begin, end, func([]hub.Entry, hub.ID, hub.Gap) {
			if others.Add(1); !stop.Load() {
				again()
			}
		}, alive})
	}
	again()
	before := others.Load()
	if r := f.askFor("42", hub.ID{Ms: 30000, Seq: 0}, end); r.gap != 0 || r.covered != end {
		t.Errorf("%+v", r)
	}
	stop.Store(true)
	if n := others.Load() - before; n > 5 {
		t.Errorf("answered after %d others", n)
	}
}

// However many queries are pending, each is answered once, except those whose client has ended.
func TestQueryOfAClientThatIsGoneIsDropped(t *testing.T) {
	t.Parallel()
	server := durable(t)
	server.Do("EVAL", `for i = 1, 1000 do redis.call("XADD", KEYS[1], i .. "-0", "ch", "user-7", "data", "x") end return 1`, 1, "log")
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes = 1000 })
	server.Kill()
	var gone atomic.Int32
	var wg sync.WaitGroup
	for i := range 3 * scanQueries {
		q := query{to: []hub.Recipient{hub.User("7")}, after: hub.ID{Ms: uint64(1 + i)}, upTo: hub.ID{Ms: 1000}}
		if i%2 == 0 {
			q.gone = func() bool { return true }
			q.answer = func([]hub.Entry, hub.ID, hub.Gap) { gone.Add(1) }
		} else {
			wg.Add(1)
			q.gone = func() bool { return false }
			q.answer = func(list []hub.Entry, covered hub.ID, gap hub.Gap) {
				if gap != 0 || len(list) != 999-i || covered != q.upTo {
					t.Errorf("after %v: %d entries up to %v, %v", q.after, len(list), covered, gap)
				}
				wg.Done()
			}
		}
		f.add(q)
	}
	server.Restart()
	wg.Wait()
	if n := gone.Load(); n > 0 {
		t.Errorf("%d were answered although their client had ended", n)
	}
}

// An error that delays queries is logged once, and again if it recurs after a success.
func TestErrorOfAScanIsLoggedOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "&*")
	log := &logbook{}
	f := follow(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), func(c *StreamConfig) { c.Logger = slog.New(log) })
	id, err := parseID(xadd(server, "user-42", "x"))
	if err != nil {
		t.Fatal(err)
	}
	f.want(t, "42: x")
	for range 2 {
		server.Do("ACL", "SETUSER", "app", "-xrange")
		refused := callsOf(t, server, "xrange") + 3
		c := make(chan hub.Gap, 1)
		f.add(query{[]hub.Recipient{hub.User("42")}, id, id, func(_ []hub.Entry, _ hub.ID, gap hub.Gap) { c <- gap }, alive})
		f.await(t, "three tries", func() bool { return callsOf(t, server, "xrange") >= refused })
		log.once(t, "WARN redis stream read failed, resuming clients wait", "reason=right", "user app is not allowed to read log", "+xrange")
		server.Do("ACL", "SETUSER", "app", "+xrange")
		if gap := <-c; gap != 0 {
			t.Error(gap)
		}
		log.mu.Lock()
		log.lines = nil
		log.mu.Unlock()
	}
	server.Do("SET", "log", "text")
	f.add(query{[]hub.Recipient{hub.User("42")}, id, id, func([]hub.Entry, hub.ID, hub.Gap) {}, alive})
	log.await(t, "WARN redis stream read failed, resuming clients wait", "reason=type", "log is not a stream")
	log.await(t, "WARN redis subscription lost", "reason=type", "log is not a stream")
}
