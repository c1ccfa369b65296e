package redis

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

// A follower is a running StreamFeed with the events that it has delivered, as texts.
type follower struct {
	*StreamFeed
	mu     sync.Mutex
	events []string
	floor  hub.ID
	newest hub.ID
}

func (f *follower) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events = append(f.events, fmt.Sprintf(format, args...))
}

func (f *follower) BroadcastUser() string { return "*" }

func (f *follower) Load(floor, newest hub.ID, entries iter.Seq2[hub.Recipient, hub.Entry]) {
	f.mu.Lock()
	f.floor, f.newest = floor, newest
	f.mu.Unlock()
	for _, e := range entries {
		f.note("old %s", e.Payload)
	}
}

func (f *follower) Append(to hub.Recipient, e hub.Entry) int {
	user := nameOf(to)
	switch {
	case user == "":
		f.note("skip")
	case e.Gap != 0:
		f.note("too large for %s", user)
	default:
		f.note("%s:%s %s", user, e.Topic, e.Payload)
		return 1
	}
	return 0
}

func (f *follower) Lose(hub.ID)  { f.note("lost") }
func (f *follower) Reset(hub.ID) { f.note("reset") }

func (f *follower) Disconnect(user string) int {
	f.note("disconnect %s", user)
	return 1
}

// A countingHub does not keep payloads.
type countingHub struct {
	loaded atomic.Int64
	losses []string // owned by the goroutine that reads
}

func (h *countingHub) BroadcastUser() string { return "*" }

func (h *countingHub) Load(_, _ hub.ID, entries iter.Seq2[hub.Recipient, hub.Entry]) {
	for range entries {
		h.loaded.Add(1)
	}
}

func (h *countingHub) Append(to hub.Recipient, e hub.Entry) int {
	if to == (hub.Recipient{}) || e.Gap != 0 {
		return 0
	}
	return 1
}

func (h *countingHub) Lose(upTo hub.ID) {
	h.losses = append(h.losses, strings.ReplaceAll("lost "+upTo.String(), "18446744073709551615", "max"))
}

func (h *countingHub) Reset(hub.ID)          {}
func (h *countingHub) Disconnect(string) int { return 0 }

// follow runs a StreamFeed until the test ends, and waits until it is connected.
func follow(t *testing.T, server *Server, change func(*StreamConfig)) *follower {
	t.Helper()
	f := followLater(t, server, change)
	f.connected(t, 1)
	return f
}

// followLater is follow without waiting for the connection.
func followLater(t *testing.T, server *Server, change func(*StreamConfig)) *follower {
	t.Helper()
	f := new(follower)
	cfg := StreamConfig{
		Server: server, Hub: f, Key: "log", WindowBytes: 1 << 20, MaxPayload: 100,
		Block: 200 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if f.StreamFeed, err = NewStreamFeed(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if s := f.Stats(); s.Received != s.Routed+s.Unrouted+s.Malformed+s.TooLarge {
			t.Errorf("%+v does not add up", s)
		}
	})
	return f
}

func (f *follower) connected(t *testing.T, generation uint64) {
	t.Helper()
	f.await(t, fmt.Sprint("generation ", generation), func() bool {
		s := f.Stats()
		return s.Connected && s.Generation >= generation
	})
}

func (f *follower) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for %s; received %q", what, f.events)
		}
	}
}

// want waits until as many events were received, and compares them.
func (f *follower) want(t *testing.T, want ...string) {
	t.Helper()
	f.await(t, fmt.Sprintf("%q", want), func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.events) >= len(want)
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.events, want) {
		t.Fatalf("received %q, want %q", f.events, want)
	}
	f.events = nil
}

func xadd(server *redistest.Server, channel, payload string) string {
	return server.Do("XADD", "log", "*", "ch", channel, "data", payload).(string)
}

func durable(t *testing.T) *redistest.Server {
	return redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
}

func TestStreamFeedDeliversEntries(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	disconnect(server, beforeTheStart(), "old") // must not disconnect the user
	xadd(server, "user-42", "before")
	xadd(server, "group-7:t", "before")
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.Channels.Groups = "group-" })
	f.want(t, "old ", "old before", "old before")

	xadd(server, "user-42:a:b", "one")
	server.Do("XADD", "log", "*", "data", "two", "more", "x", "ch", "user-*")
	for _, malformed := range [][]any{{"ch", "user-42"}, {"data", "x"}, {"ch", "user-", "data", "x"}, {"ch", "other-42", "data", "x"}, {"ch", "group-:t", "data", "x"}, {"a", "b"}} {
		server.Do(append([]any{"XADD", "log", "*"}, malformed...)...)
	}
	xadd(server, "user-42", fmt.Sprintf("%0101d", 0))
	xadd(server, "group-7:a:b", "three")
	xadd(server, "group-*", fmt.Sprintf("%0101d", 0))
	server.Do("XADD", "log", "*", "ctl", `{"op":"disconnect","user":"42"}`)
	server.Do("XADD", "log", "*", "ctl", `nonsense`)
	f.want(t, "42:a:b one", "*: two", "skip", "skip", "skip", "skip", "skip", "skip", "too large for 42", "group 7:a:b three", "too large for group *", "disconnect 42", "skip", "skip")
	f.await(t, "the counts", func() bool {
		s := f.Stats()
		return s.Received == 11 && s.Routed == 3 && s.Malformed == 6 && s.TooLarge == 2 && s.ControlReceived == 2 && s.ControlMalformed == 1
	})
}

func TestStreamFeedLosesNothingWhenRedisWithAOFIsKilled(t *testing.T) {
	t.Parallel()
	server := durable(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
	var want []string
	for i := range 5 {
		for range 20 {
			xadd(server, "user-42", fmt.Sprint(len(want)))
			want = append(want, fmt.Sprint("42: ", len(want)))
		}
		switch i {
		case 0, 2:
			server.Kill()
			server.Restart()
		case 1:
			server.Do("CLIENT", "KILL", "TYPE", "normal")
		}
	}
	f.want(t, want...)
}

func TestStreamFeedNoticesAFrozenRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{AnswerTimeout: 300 * time.Millisecond}), nil)
	server.Freeze()
	f.await(t, "the end of the generation", func() bool { return !f.Stats().Connected })
	server.Thaw()
	xadd(server, "user-42", "after")
	f.want(t, "42: after")
}

func TestStreamThatWentBackwardsIsAReset(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(*redistest.Server){
		"restart without AOF": func(s *redistest.Server) { s.Restart() },
		"DEL":                 func(s *redistest.Server) { s.Do("DEL", "log") },
		"DEL, recreated": func(s *redistest.Server) {
			s.Do("EVAL", `redis.call("DEL", KEYS[1]) redis.call("XADD", KEYS[1], "1-1", "ch", "user-42", "data", "unread") return 1`, 1, "log")
		},
		"DEL, recreated on both sides of the cursor": func(s *redistest.Server) {
			s.Do("EVAL", `redis.call("DEL", KEYS[1])
				for i = 1, 3 do redis.call("XADD", KEYS[1], "1-" .. i, "ch", "user-42", "data", "unread") end
				redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", "unread") return 1`, 1, "log")
		},
		"DEL, recreated in the same millisecond": func(s *redistest.Server) {
			s.Do("EVAL", `local last = redis.call("XINFO", "STREAM", KEYS[1])[8]
				redis.call("DEL", KEYS[1])
				for i = 1, 4 do redis.call("XADD", KEYS[1], "1-" .. i, "ch", "user-42", "data", "unread") end
				redis.call("XADD", KEYS[1], last, "ch", "user-42", "data", "unread") return 1`, 1, "log")
		},
		"DEL, recreated and longer": func(s *redistest.Server) {
			s.Do("EVAL", `redis.call("DEL", KEYS[1])
				for i = 1, 500 do redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", "unread") end return 1`, 1, "log")
		},
		"DEL, recreated, longer and trimmed": func(s *redistest.Server) {
			s.Do("EVAL", `redis.call("DEL", KEYS[1])
				for i = 1, 500 do redis.call("XADD", KEYS[1], "MAXLEN", 498, "*", "ch", "user-42", "data", "unread") end return 1`, 1, "log")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			f := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
			for range 3 {
				xadd(server, "user-42", "x")
			}
			f.want(t, "42: x", "42: x", "42: x")
			fault(server)
			f.want(t, "reset")
			idle := callsOf(t, server, "xlen") + 2
			f.await(t, "a look", func() bool { return callsOf(t, server, "xlen") >= idle })
			xadd(server, "user-42", "after")
			f.want(t, "42: after")
		})
	}
}

func TestTrimmedBeforeItWasReadIsLost(t *testing.T) {
	t.Parallel()
	server := durable(t)
	relay := redistest.StartRelay(t, server.Addr())
	f := follow(t, parse(t, relay.URL(), ServerOptions{}), nil)
	xadd(server, "user-42", "one")
	f.want(t, "42: one")

	// In one transaction, so that nothing is read in between.
	server.Do("EVAL", `for i = 1, 10 do redis.call("XADD", KEYS[1], "MAXLEN", "1", "*", "ch", "user-42", "data", i) end return 1`, 1, "log")
	f.want(t, "lost", "42: 10")

	// All entries have been read, so trimming them is not a loss.
	server.Do("XTRIM", "log", "MAXLEN", "0")
	server.Restart()
	f.connected(t, 2)
	server.Do("EVAL", `for i = 1, 2 do redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", i) end redis.call("XTRIM", KEYS[1], "MAXLEN", 1) return 1`, 1, "log")
	f.want(t, "lost", "42: 2")
	xadd(server, "user-42", "last")
	f.want(t, "42: last")
}

// There is one reset, however many entries are later than the cursor.
func TestLongRecreatedStreamIsOneReset(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
	const add = `for i = 1, ARGV[1] do redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", i) end return 1`
	server.Do("EVAL", add, 1, "log", 700)
	f.await(t, "all", func() bool { return f.Stats().Received == 700 })
	f.events = nil
	server.Do("EVAL", `redis.call("DEL", KEYS[1]) `+add, 1, "log", 500)
	f.want(t, "reset")
	idle := callsOf(t, server, "xlen") + 3
	f.await(t, "a look", func() bool { return callsOf(t, server, "xlen") >= idle })
	xadd(server, "user-42", "after")
	f.want(t, "42: after")
}

// Before Redis 7, which has counters, a deleted entry is not a reset while the feed is connected.
func TestMissingEntryIsAResetUnlessDeleted(t *testing.T) {
	t.Parallel()
	r := &reader{StreamFeed: &StreamFeed{position: position{cursor: hub.ID{Ms: 5}, index: 5}}}
	batch := []entry{{Entry: hub.Entry{ID: hub.ID{Ms: 6}}}}
	for name, test := range map[string]struct {
		counts  bool
		deleted uint64
		batch   []entry
		want    bool
	}{
		"deleted":                         {true, 5, batch, false},
		"not deleted":                     {true, 4, batch, true},
		"before Redis 7, in sight":        {false, 0, batch, false},
		"before Redis 7, after an outage": {false, 0, nil, true},
	} {
		info := streamInfo{length: 5, first: hub.ID{Ms: 1, Seq: 0}, last: hub.ID{Ms: 6, Seq: 0}, deleted: hub.ID{Ms: test.deleted, Seq: 0}, added: 6, counts: test.counts}
		if got := r.replaced(noEntry, topology.Identity{}, info, test.batch); got != test.want {
			t.Errorf("%s: replaced %v", name, got)
		}
	}
}

// Entries that are later than a batch and were trimmed while the batch was being read must not be announced as a loss
// before the batch.
func TestLossIsAnnouncedWhereItWas(t *testing.T) {
	t.Parallel()
	id := func(n uint64) hub.ID { return hub.ID{Ms: n, Seq: 0} }
	for name, test := range map[string]struct {
		read        []uint64
		first, last uint64 // first 0: all were trimmed
		added       uint64 // equal to last: one entry per millisecond
		during      []string
		next        uint64 // the next entry that it reads; 0: none
		after       []string
	}{
		"before, the batch is there":        {[]uint64{8, 9}, 8, 9, 9, []string{"lost 7-max"}, 0, nil},
		"before, half of the batch is gone": {[]uint64{8, 9}, 9, 9, 9, []string{"lost 7-max"}, 0, nil},
		"before, the batch is all":          {[]uint64{8, 9}, 0, 9, 9, []string{"lost 7-max"}, 0, nil},
		"none, the batch is gone":           {[]uint64{6, 7}, 8, 9, 9, nil, 8, nil},
		"behind the batch":                  {[]uint64{6, 7}, 9, 9, 9, nil, 9, []string{"lost 8-max"}},
		"behind the batch, all gone":        {[]uint64{6, 7}, 0, 9, 9, nil, 0, []string{"lost 9-0"}},
	} {
		t.Run(name, func(t *testing.T) {
			one := topology.Identity{RunID: "1"}
			h := new(countingHub)
			f := &StreamFeed{cfg: StreamConfig{Hub: h}, position: position{cursor: id(5), index: 5, primary: one}}
			r := &reader{StreamFeed: f, conn: &streamConn{server: one}}
			info := streamInfo{first: id(test.first), last: id(test.last), added: test.added, counts: true}
			if test.first > 0 {
				info.length = test.last - test.first + 1
			}
			batch := func(ids ...uint64) (entries []entry) {
				for _, n := range ids {
					entries = append(entries, entry{Entry: hub.Entry{ID: id(n)}, to: hub.User("42")})
				}
				return entries
			}
			read := func(entries []entry, want []string) {
				t.Helper()
				h.losses = nil
				if r.replaced(noEntry, one, info, entries) {
					t.Fatal("replaced")
				}
				r.checkTrimmed(info, entries)
				for _, e := range entries {
					r.deliver(e)
				}
				if !slices.Equal(h.losses, want) {
					t.Errorf("announced %q, want %q", h.losses, want)
				}
			}
			read(batch(test.read...), test.during)
			if test.next > 0 {
				read(batch(test.next), test.after)
			} else {
				read(nil, test.after)
			}
			if r.index > test.added {
				t.Errorf("index %d of %d", r.index, test.added)
			}
		})
	}
}

// Entries that were deleted before they were read are not announced as a loss when all entries are trimmed.
func TestDeletedUnreadEntryIsNoLoss(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
	xadd(server, "user-42", "first")
	f.want(t, "42: first")
	server.Do("EVAL", `local id = redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", "deleted")
		redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", "one") redis.call("XDEL", KEYS[1], id) return 1`, 1, "log")
	f.want(t, "42: one")
	idle := callsOf(t, server, "xlen") + 2
	f.await(t, "a look", func() bool { return callsOf(t, server, "xlen") >= idle })
	server.Do("XTRIM", "log", "MAXLEN", "0")
	xadd(server, "user-42", "two")
	f.want(t, "42: two")
}

func TestDeletedEntryIsNoReset(t *testing.T) {
	t.Parallel()
	server := durable(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
	xadd(server, "user-42", "one")
	id := xadd(server, "user-42", "two")
	f.want(t, "42: one", "42: two")
	server.Do("XDEL", "log", id)
	server.Restart()
	f.connected(t, 2)
	xadd(server, "user-42", "three")
	f.want(t, "42: three")
}

// replicated starts a primary with a replica, and a feed that reads the primary through a relay.
func replicated(t *testing.T) (primary, replica *redistest.Server, relay *redistest.Relay, f *follower) {
	t.Helper()
	primary = redistest.Start(t)
	replica = redistest.StartReplica(t, primary)
	relay = redistest.StartRelay(t, primary.Addr())
	return primary, replica, relay, follow(t, parse(t, relay.URL(), ServerOptions{}), nil)
}

// promote promotes a replica as soon as it has n entries.
func promote(replica *redistest.Server, n int64) {
	replica.Await("the entries", func() bool { return replica.Do("XLEN", "log").(int64) == n })
	replica.Do("REPLICAOF", "NO", "ONE")
}

// addEntry adds a message for user 42 with an id.
func addEntry(s *redistest.Server, id, data string) {
	s.Do("XADD", "log", id, "ch", "user-42", "data", data)
}

// A replica without the newest entries is promoted.
func TestPromotedReplicaWithoutTheTailIsAReset(t *testing.T) {
	t.Parallel()
	primary, replica, relay, f := replicated(t)
	xadd(primary, "user-42", "both")
	promote(replica, 1)
	xadd(primary, "user-42", "only there")
	f.want(t, "42: both", "42: only there")
	xadd(replica, "user-42", "only here")
	relay.SetTarget(replica.Addr())
	primary.Kill()
	f.want(t, "reset")
	xadd(replica, "user-42", "after")
	f.want(t, "42: after")
}

// A replica without the newest entries is promoted and receives others. Then it is trimmed until as many entries were
// removed as were read. The counts match, although entries that were never read were removed.
func TestAsManyTrimmedOnAPromotedReplicaAsWereReadIsAReset(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		promote func(t *testing.T, primary, replica *redistest.Server, relay *redistest.Relay)
	}{
		"another server": {func(_ *testing.T, primary, replica *redistest.Server, relay *redistest.Relay) {
			relay.SetTarget(replica.Addr())
			primary.Kill()
		}},
		// The connection to the old primary stays open. As a replica, it now has the new primary's entries.
		"the server becomes a replica": {func(t *testing.T, primary, replica *redistest.Server, _ *redistest.Relay) {
			host, port := replica.HostPort()
			primary.Do("REPLICAOF", host, port)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary, replica, relay, f := replicated(t)
			for i := range 8 {
				addEntry(primary, fmt.Sprintf("%d-0", 101+i), "both")
			}
			promote(replica, 8)
			addEntry(primary, "109-0", "only there")
			addEntry(primary, "110-0", "only there")
			f.want(t, "42: both", "42: both", "42: both", "42: both", "42: both", "42: both", "42: both", "42: both", "42: only there", "42: only there")
			for i := range 4 {
				addEntry(replica, fmt.Sprintf("%d-0", 201+i), "unread")
			}
			replica.Do("XTRIM", "log", "MAXLEN", 2) // 10 were removed, as many as were read
			test.promote(t, primary, replica, relay)
			f.want(t, "reset")
			addEntry(replica, "301-0", "after")
			f.want(t, "42: after")
		})
	}
}

// A stream of which all entries were read and trimmed is the same stream after a restart.
func TestRestartWithEverythingTrimmedIsNoReset(t *testing.T) {
	t.Parallel()
	server := durable(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
	xadd(server, "user-42", "one")
	f.want(t, "42: one")
	server.Do("XTRIM", "log", "MAXLEN", 0)
	server.Restart()
	f.connected(t, 2)
	xadd(server, "user-42", "two")
	f.want(t, "42: two")
}

// Without the permission for INFO, a server is identified by the connection: trimming during one connection is not a
// reset.
func TestTrimmedWithoutInfoPermissionIsNoReset(t *testing.T) {
	t.Parallel()
	server := durable(t)
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "&*", "-info")
	f := follow(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), nil)
	xadd(server, "user-42", "one")
	f.want(t, "42: one")
	server.Do("EVAL", `redis.call("XTRIM", KEYS[1], "MAXLEN", 0) redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", "two") return 1`, 1, "log")
	f.want(t, "42: two")
}

// If its clock is slow, Redis continues after the newest id that it has. So a promoted replica can reuse ids that only its
// primary had assigned.
func TestPromotedReplicaThatReusesIDsIsAReset(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]string{"as many": "", "more": "7-4"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary, replica, relay, f := replicated(t)
			addEntry(primary, "7-1", "both")
			promote(replica, 1)
			for _, s := range []*redistest.Server{primary, replica} {
				addEntry(s, "7-2", "of "+s.Addr())
				addEntry(s, "7-3", "of "+s.Addr())
			}
			f.want(t, "42: both", "42: of "+primary.Addr(), "42: of "+primary.Addr())
			if after != "" {
				addEntry(replica, after, "more")
			}
			relay.SetTarget(replica.Addr())
			primary.Kill()
			f.want(t, "reset")
			addEntry(replica, "8-1", "after")
			f.want(t, "42: after")
		})
	}
}

// The newest entry of the window is compared, too.
func TestStreamReplacedBeforeItWasReadIsAReset(t *testing.T) {
	t.Parallel()
	one, other := redistest.Start(t), redistest.Start(t)
	for _, s := range []*redistest.Server{one, other} {
		s.Do("XADD", "log", "7-1", "ch", "user-42", "data", "of "+s.Addr())
	}
	for _, window := range []int64{1, 1 << 20} {
		relay := redistest.StartRelay(t, one.Addr())
		f := follow(t, parse(t, relay.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes = window })
		if window > 1 {
			f.want(t, "old of "+one.Addr())
		}
		relay.SetTarget(other.Addr())
		one.Do("CLIENT", "KILL", "TYPE", "normal")
		f.want(t, "reset")
	}
}

func TestWindowIsBounded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("EVAL", `for i = 1, 5000 do redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", i) end return 1`, 1, "log")
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes = 500_000 })
	f.mu.Lock()
	n, last := len(f.events), f.events[len(f.events)-1]
	first, floor := f.events[0], f.floor
	f.mu.Unlock()
	if n < 2000 || n > 2550 || last != "old 5000" || first != fmt.Sprint("old ", 5001-n) || floor == (hub.ID{}) {
		t.Errorf("window of %d from %q to %q, floor %v", n, first, last, floor)
	}

	all := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
	if len(all.events) != 5000 || all.floor != (hub.ID{}) {
		t.Errorf("window of %d, floor %v", len(all.events), all.floor)
	}
}

type reply struct {
	entries []hub.Entry
	covered hub.ID
	gap     hub.Gap
}

func (f *follower) askFor(user string, after, upTo hub.ID, groups ...string) reply {
	c := make(chan reply, 1)
	to := []hub.Recipient{hub.User(user)}
	for _, group := range groups {
		to = append(to, hub.Group(group))
	}
	f.add(query{to, after, upTo, func(entries []hub.Entry, covered hub.ID, gap hub.Gap) { c <- reply{entries, covered, gap} }, alive})
	return <-c
}

// alive is the gone function of a query whose client is open.
func alive() bool { return false }

func TestQueriesAreAnswered(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	added := server.Do("EVAL", `local ids = {}
		for i = 0, 2499 do
			ids[i + 1] = redis.call("XADD", KEYS[1], 1000 + math.floor(i / 10) .. "-" .. i, "ch", ({"user-1", "user-2", "user-*", "group-1", "group-x", "group-*"})[i % 6 + 1], "data", i)
		end
		return ids`, 1, "log").([]any)
	var ids []hub.ID
	for _, text := range added {
		id, err := parseID(text.(string))
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	server.Do("XTRIM", "log", "MAXLEN", "2000") // the first 500 are removed
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes, c.Channels.Groups = 1000, "group-" })
	last := ids[len(ids)-1]
	for name, test := range map[string]struct {
		after, upTo hub.ID
		gap         hub.Gap
	}{
		"trimmed":      {ids[10], last, hub.GapHistoryExpired},
		"beginning":    {hub.ID{}, last, hub.GapHistoryExpired},
		"never":        {hub.ID{Ms: ids[600].Ms, Seq: ids[600].Seq + 500}, last, hub.GapUnknownID},
		"future":       {hub.ID{Ms: last.Ms + 1000, Seq: 0}, last, hub.GapUnknownID},
		"ahead":        {last, ids[2000], 0},
		"just before":  {ids[500].Previous(), ids[500], 0},
		"ends at once": {last, last, 0},
	} {
		if got := f.askFor("1", test.after, test.upTo); got.gap != test.gap {
			t.Errorf("%s: %v, want %v", name, got.gap, test.gap)
		}
	}
	var wg sync.WaitGroup
	for i := range 2 * scanQueries { // more than one pass can answer
		wg.Go(func() {
			after := 500 + 2*i
			user := []string{"1", "2", "3"}[i%3]
			groups := [][]string{nil, {"1"}, {"none", "x", "1"}, {"2"}}[i%4]
			var want, got []string
			for n := after + 1; n < 2400; n++ {
				to := []string{"1", "2", "*", "group 1", "group x", "group *"}[n%6]
				group, isGroup := strings.CutPrefix(to, "group ")
				if to == user || to == "*" || isGroup && slices.Contains(groups, group) {
					want = append(want, fmt.Sprint(n))
				}
			}
			for at := ids[after]; at.Compare(ids[2399]) < 0; {
				r := f.askFor(user, at, ids[2399], groups...)
				if r.gap != 0 || at.Compare(r.covered) >= 0 {
					t.Errorf("%v after %v: %+v", user, at, r.gap)
					return
				}
				for _, e := range r.entries {
					got = append(got, e.Payload)
				}
				at = r.covered
			}
			if !slices.Equal(got, want) {
				t.Errorf("user %s of %q after %d: %d entries, want %d", user, groups, after, len(got), len(want))
			}
		})
	}
	wg.Wait()

	// While Redis is down, the query waits.
	c := make(chan reply, 1)
	server.Kill()
	f.add(query{[]hub.Recipient{hub.User("1")}, last, last, func(_ []hub.Entry, covered hub.ID, gap hub.Gap) { c <- reply{nil, covered, gap} }, alive})
	server.Restart() // without persistence: a new stream
	if r := <-c; r.gap != hub.GapUnknownID {
		t.Errorf("answer of the new log: %+v", r)
	}
}

// throttled is a proxy that limits the rate of a server's replies.
func throttled(t *testing.T, target string, bytesPerSecond int) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	pass := func(client net.Conn) {
		defer client.Close()
		server, err := net.Dial("tcp", target)
		if err != nil {
			return
		}
		wg.Go(func() { io.Copy(server, client); server.Close() })
		buf := make([]byte, bytesPerSecond/100)
		for {
			n, err := server.Read(buf)
			if err != nil {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
			time.Sleep(time.Duration(n) * time.Second / time.Duration(bytesPerSecond))
		}
	}
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { pass(client) })
		}
	})
	return "redis://" + l.Addr().String()
}

// A reply may take longer than AnswerTimeout as long as bytes arrive. This holds for new entries, the load, and
// queries.
func TestSlowConnectionIsNotUnresponsive(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s, err := ParseServer(throttled(t, server.Addr(), 256<<10), ServerOptions{AnswerTimeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var second countingHub
	with := func(h StreamHub) func(c *StreamConfig) {
		return func(c *StreamConfig) { c.Hub, c.MaxPayload, c.WindowBytes = h, 1<<20, 800<<10 }
	}
	f := follow(t, s, with(new(countingHub)))
	// Replies grow to 64 entries, which take 2.5 s.
	server.Do("EVAL", `for i = 1, 100 do redis.call("XADD", KEYS[1], i .. "-0", "ch", "user-42", "data", ARGV[1]) end return 1`,
		1, "log", strings.Repeat("x", 10<<10))
	f.await(t, "all", func() bool { return f.Stats().Routed == 100 })
	var query sync.WaitGroup
	query.Go(func() {
		if r := f.askFor("7", hub.ID{Ms: 1, Seq: 0}, hub.ID{Ms: 100, Seq: 0}); r.gap != 0 || r.covered != (hub.ID{Ms: 100, Seq: 0}) {
			t.Errorf("after %v: %v", r.covered, r.gap)
		}
	})
	follow(t, s, with(&second))
	query.Wait()
	if n := second.loaded.Load(); n < 60 {
		t.Errorf("window of %d", n)
	}
	if n := f.Stats().Generation; n != 1 {
		t.Errorf("%d generations", n)
	}
}

// logTo makes a feed log to a logbook.
func logTo(log *logbook) func(*StreamConfig) {
	return func(c *StreamConfig) { c.Logger = slog.New(log) }
}
