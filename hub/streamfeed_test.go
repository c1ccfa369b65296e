package hub_test

import (
	"fmt"
	"runtime"
	"testing"

	"usercast/hub"
)

// loadedFeed returns a hub whose log contains the entries 1-0 to 9-0 for user 42. The window has those after 5-0. The
// slice receives the queries.
func loadedFeed(t *testing.T) (h *hub.StreamFeed, queries *[]*hub.Query) {
	queries = new([]*hub.Query)
	h = newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1 << 20}, func(q *hub.Query) { *queries = append(*queries, q) })
	h.Load(hub.ID{Ms: 5}, hub.ID{Ms: 9}, func(yield func(hub.Recipient, hub.Entry) bool) {
		for ms := uint64(6); ms <= 9 && yield(hub.User("42"), numbered(ms)); ms++ {
		}
	})
	return h, queries
}

func numbered(ms uint64) hub.Entry {
	return hub.Entry{ID: hub.ID{Ms: ms}, Payload: fmt.Sprint(ms)}
}

// ask makes a client that resumes before the window send a query.
func ask(t *testing.T, h *hub.StreamFeed, queries *[]*hub.Query, resume string) (*listener, *hub.Query) {
	t.Helper()
	l := register(t, h, hub.Options{User: "42", Resume: resume})
	wantFrames(t, l)
	if len(*queries) != 1 {
		t.Fatalf("%d queries, want 1", len(*queries))
	}
	q := (*queries)[0]
	*queries = nil
	return l, q
}

func TestStreamFeedResumesFromTheWindow(t *testing.T) {
	h, queries := loadedFeed(t)
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "7-0"}), "8", "9")
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "5-0"}), "6", "7", "8", "9")
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "9-0"}))
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "7-1"}), "gap unknown-id")
	wantFrames(t, register(t, h, hub.Options{User: "7", Resume: "7-0"}))
	if len(*queries) != 0 {
		t.Errorf("%d queries for entries of the window", len(*queries))
	}
}

func TestStreamFeedQueriesOlderEntries(t *testing.T) {
	h, queries := loadedFeed(t)
	l, q := ask(t, h, queries, "2-0")
	if q.User != "42" || q.After != (hub.ID{Ms: 2}) || q.UpTo != (hub.ID{Ms: 5}) {
		t.Errorf("query %+v", q)
	}
	h.Append(hub.User("42"), numbered(10))
	wantFrames(t, l)                                     // not before the older entries
	q.Answer([]hub.Entry{numbered(3)}, hub.ID{Ms: 3}, 0) // a part
	wantFrames(t, l, "3")                                // and sends another query
	(*queries)[0].Answer([]hub.Entry{numbered(4)}, hub.ID{Ms: 5}, 0)
	h.Append(hub.User("42"), numbered(11))
	wantFrames(t, l, "4", "6", "7", "8", "9", "10", "11")
	h.Append(hub.User("42"), numbered(12))
	wantFrames(t, l, "12")
}

func TestStreamFeedQueryIsAnsweredWithAGap(t *testing.T) {
	for gap, want := range map[hub.Gap][]string{
		hub.GapHistoryExpired: {"gap history-expired", "6", "7", "8", "9", "10"},
		hub.GapUnknownID:      {"gap unknown-id", "10"},
	} {
		h, queries := loadedFeed(t)
		l, q := ask(t, h, queries, "2-0")
		q.Answer(nil, hub.ID{}, gap)
		if l.wakes.Load() != 1 {
			t.Errorf("woken %d times by the answer", l.wakes.Load())
		}
		if gap == hub.GapHistoryExpired {
			h.Append(hub.User("42"), numbered(10))
			wantFrames(t, l, want...)
			continue
		}
		wantFrames(t, l, want[0])
		h.Append(hub.User("42"), numbered(10))
		wantFrames(t, l, want[1])
	}
}

// Another hub has read further: entries that the client already has are not sent again.
func TestStreamFeedEarlyClient(t *testing.T) {
	h, queries := loadedFeed(t)
	l, q := ask(t, h, queries, "11-0")
	q.Answer(nil, q.After, 0)
	wantFrames(t, l)
	if id, ok := l.Position(); ok {
		t.Errorf("position %v: this hub cannot know yet whether the log still has the client's own", id)
	}
	if last := l.State().LastID; last != (hub.ID{Ms: 11}) {
		t.Errorf("last id %v, want the client's own", last)
	}
	for ms := uint64(10); ms <= 12; ms++ {
		h.Append(hub.User("42"), numbered(ms))
	}
	wantFrames(t, l, "12")
}

func TestStreamFeedClientEndsDuringAQuery(t *testing.T) {
	for name, end := range map[string]func(*listener){
		"graceful": func(l *listener) { l.Finish(hub.ReasonDrain) },
		"at once":  func(l *listener) { l.End(hub.ReasonDrain) },
	} {
		t.Run(name, func(t *testing.T) {
			h, queries := loadedFeed(t)
			l, q := ask(t, h, queries, "2-0")
			end(l)
			if frames, reason := l.drain(); frames != nil || reason != hub.ReasonDrain {
				t.Errorf("%d frames, reason %v", len(frames), word(reason))
			}
			if id, ok := l.Position(); ok {
				t.Errorf("position %v although older entries are missing", id)
			}
			q.Answer([]hub.Entry{numbered(3)}, hub.ID{Ms: 5}, 0) // too late, without effect
		})
	}
}

func TestStreamFeedResetDuringAQuery(t *testing.T) {
	h, queries := loadedFeed(t)
	waiting, q := ask(t, h, queries, "2-0")
	reading, current := register(t, h, hub.Options{User: "42", Resume: "7-0"}), listen(t, h, hub.Options{User: "42"})
	h.Reset(hub.ID{Ms: 4})
	q.Answer([]hub.Entry{numbered(3)}, hub.ID{Ms: 5}, 0) // of the log before the reset
	h.Append(hub.User("42"), numbered(5))
	for _, l := range []*listener{waiting, reading, current} {
		wantFrames(t, l, "gap feed-reset", "5")
	}
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "4-0"}), "gap feed-reset", "5")
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "5-0"}))
}

func TestStreamFeedLosesEntries(t *testing.T) {
	h, _ := loadedFeed(t)
	l := listen(t, h, hub.Options{User: "42"})
	h.Lose(hub.ID{Ms: 20})
	h.Append(hub.User("42"), numbered(21))
	wantFrames(t, l, "gap history-expired", "21")
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "9-0"}), "gap history-expired", "21")
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: "20-0"}), "21")
}

// An entry for a user without clients may concern a client that registers later.
func TestStreamFeedWithoutAWindowLosesNothing(t *testing.T) {
	var queries []*hub.Query
	h := newStreamFeed(t, hub.Config{BroadcastUser: "*"}, func(q *hub.Query) { queries = append(queries, q) })
	h.Load(hub.ID{Ms: 9}, hub.ID{Ms: 9}, func(func(hub.Recipient, hub.Entry) bool) {})
	h.Append(hub.User("42"), numbered(10)) // this user does not have a client
	l := register(t, h, hub.Options{User: "42", Resume: "9-0"})
	got, _ := l.drain()
	if len(queries) == 0 && len(got) == 0 {
		id, ok := l.Position()
		t.Errorf("complete up to %v (%v), and 10-0 was neither replayed, requested, nor announced as a gap", id, ok)
	}
}

// If entries arrive during a query, another query must not be needed for them.
func TestStreamFeedReplayWithoutAWindowEnds(t *testing.T) {
	var queries []*hub.Query
	h := newStreamFeed(t, hub.Config{BroadcastUser: "*"}, func(q *hub.Query) { queries = append(queries, q) })
	h.Load(hub.ID{Ms: 9}, hub.ID{Ms: 9}, func(func(hub.Recipient, hub.Entry) bool) {})
	l := register(t, h, hub.Options{User: "42", Resume: "2-0"})
	l.drain()
	listen(t, h, hub.Options{User: "7"})
	ms, n := uint64(9), 0
	for len(queries) > 0 && n < 1000 {
		n++
		q := queries[0]
		queries = queries[1:]
		ms++
		h.Append(hub.User("7"), numbered(ms)) // to another user, one during each query
		q.Answer(nil, q.UpTo, 0)
		l.drain()
	}
	if n > 10 {
		t.Errorf("%d queries and still not live", n)
	}
}

// The next hub replays the rest, so the browser must keep its id.
func TestInvariant12DrainDuringAReplayIsNotAGap(t *testing.T) {
	h, queries := loadedFeed(t)
	l, q := ask(t, h, queries, "2-0")
	q.Answer([]hub.Entry{numbered(3)}, hub.ID{Ms: 3}, 0) // a part; 4 and 5 are still missing
	l.Finish(hub.ReasonDrain)
	got, _ := l.drain()
	for _, text := range got {
		if text == "gap history-expired" {
			t.Errorf("got %q: the next hub would have replayed 4 and 5 from 3-0", got)
		}
	}
}

// The client has an id from a primary that was lost before this hub had read up to the id.
func TestStreamFeedEarlyClientReceivesAGapIfTheLogLostItsTail(t *testing.T) {
	h, queries := loadedFeed(t)
	l, q := ask(t, h, queries, "13-0")
	q.Answer(nil, q.After, 0) // the old primary still had 13-0
	wantFrames(t, l)
	h.Append(hub.User("42"), numbered(12)) // the new one: 12-0 was appended after the failover
	h.Append(hub.User("42"), numbered(14)) // and 13-0 never arrives
	got, _ := l.drain()
	if len(got) == 1 {
		id, ok := l.Position()
		t.Errorf("got %q, position %v %v: 12-0 is skipped without a gap", got, id, ok)
	}
}

// A client's id is later than the entries that this hub has read, and the log does not have the id any more. Entries
// that the client already has are not sent again. The gap is sent when the hub reaches the missing entries: before
// that, it could only have the client's own id.
func TestStreamFeedEarlyClientOfATrimmedLogDoesNotGoBack(t *testing.T) {
	for name, test := range map[string]struct {
		read func(h *hub.StreamFeed)
		want []string
		last hub.ID
	}{
		"the hub still gets all of it": {func(h *hub.StreamFeed) {
			for ms := uint64(10); ms <= 12; ms++ {
				h.Append(hub.User("42"), numbered(ms))
			}
		}, []string{"12"}, hub.ID{Ms: 12}},
		"the hub finds it gone": {func(h *hub.StreamFeed) {
			h.Append(hub.User("42"), numbered(10))
			h.Lose(hub.ID{Ms: 14})
		}, []string{"gap history-expired"}, hub.ID{Ms: 14}},
		"only what the client has is gone": {func(h *hub.StreamFeed) { h.Lose(hub.ID{Ms: 11}) }, nil, hub.ID{Ms: 11}},
	} {
		t.Run(name, func(t *testing.T) {
			h, queries := loadedFeed(t)
			l, q := ask(t, h, queries, "11-0")
			q.Answer(nil, hub.ID{}, hub.GapHistoryExpired)
			wantFrames(t, l)
			test.read(h)
			wantFrames(t, l, test.want...)
			if id, ok := l.Position(); !ok || id != test.last {
				t.Errorf("position %v, %v; want %v", id, ok, test.last)
			}
		})
	}
}

// Users with entries in the window count towards the bound.
func TestInvariant14WindowIsBoundedInBytes(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 8 << 20}, func(q *hub.Query) {})
	h.Load(hub.ID{}, hub.ID{}, func(func(hub.Recipient, hub.Entry) bool) {})
	for i := range 50_000 {
		h.Append(hub.User(fmt.Sprint("user", i)), hub.Entry{ID: hub.ID{Ms: uint64(i + 1)}, Payload: fmt.Sprint("p", i)})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s := h.Stats()
	if heap := int64(after.HeapAlloc - before.HeapAlloc); heap > 8<<20*5/4 || s.HistoryBytes > 8<<20 {
		t.Errorf("the heap has grown by %d MiB, the hub counts %d", heap>>20, s.HistoryBytes>>20)
	}
	runtime.KeepAlive(h)
}

// Routing an entry can end the last client of its user, if its queue or the total of all queues exceeds the bound. The
// entry is stored anyway, even if it is the first one of the user.
func TestStreamFeedKeepsTheEntryThatEndsTheLastClient(t *testing.T) {
	for name, limit := range map[string]hub.Config{
		"frames of one": {QueueFrames: 1},
		"bytes of one":  {QueueBytes: 8},
		"bytes of all":  {QueueTotalBytes: 8},
	} {
		t.Run(name, func(t *testing.T) {
			limit.BroadcastUser, limit.HistoryBytes = "*", 1<<20
			h := newStreamFeed(t, limit, func(q *hub.Query) { t.Errorf("query for entries of the window: %+v", q) })
			h.Load(hub.ID{Ms: 5}, hub.ID{Ms: 5}, func(func(hub.Recipient, hub.Entry) bool) {})
			l := listen(t, h, hub.Options{User: "42"})
			h.Append(hub.User("*"), hub.Entry{ID: hub.ID{Ms: 6}, Payload: "six"})
			h.Append(hub.User("42"), hub.Entry{ID: hub.ID{Ms: 7}, Payload: "seven, which ends it"})
			wantReason(t, l, hub.ReasonSlow)
			h.Append(hub.User("42"), hub.Entry{ID: hub.ID{Ms: 8}, Payload: "eight"})

			back := register(t, h, hub.Options{User: "42", Resume: l.Opening().String()})
			wantFrames(t, back, "six", "seven, which ends it", "eight")
			h.Append(hub.User("42"), numbered(9))
			wantFrames(t, back, "9")
		})
	}
}

// A client that has ended does not accept an answer: its user may have been removed, and then its entries would be
// skipped, but broadcasts would not.
func TestInvariant12EndedClientAcceptsNoAnswer(t *testing.T) {
	h, queries := loadedFeed(t)
	l := register(t, h, hub.Options{User: "7", Resume: "2-0"})
	wantFrames(t, l)
	q := (*queries)[0]
	l.Finish(hub.ReasonDrain)
	if !q.Gone() {
		t.Error("the query of a client that has ended is still open")
	}
	q.Answer([]hub.Entry{numbered(3)}, hub.ID{Ms: 5}, 0) // before the consumer runs
	h.Append(hub.User("7"), numbered(10))
	h.Append(hub.User("*"), numbered(11))
	if got, reason := l.drain(); got != nil || reason != hub.ReasonDrain {
		t.Errorf("got %q, reason %v; want nothing, drain", got, word(reason))
	}
	if id, ok := l.Position(); ok {
		t.Errorf("position %v although the entries after 2-0 were not sent", id)
	}
}

// Ids from before a reset are not positions of the new log.
func TestInvariant12ResetDuringTheReplayOfAnEndedClient(t *testing.T) {
	for name, taken := range map[string]int{"before its first Take": 0, "after a part": 1} {
		t.Run(name, func(t *testing.T) {
			h, _ := loadedFeed(t)
			for ms := uint64(10); ms < 110; ms++ {
				h.Append(hub.User("42"), numbered(ms))
			}
			l := register(t, h, hub.Options{User: "42", Resume: "5-0"})
			last := hub.ID{Ms: 5}
			for range taken {
				frames, _ := l.Take(nil)
				last = frames[len(frames)-1].ID
				l.Settle(frames, len(frames))
			}
			l.Finish(hub.ReasonDrain)
			h.Reset(hub.ID{Ms: 4})
			h.Append(hub.User("42"), numbered(50))
			h.Append(hub.User("42"), numbered(200))
			if got, reason := l.drain(); got != nil || reason != hub.ReasonDrain {
				t.Errorf("got %q, reason %v; want nothing, drain", got, word(reason))
			}
			if id, ok := l.Position(); ok {
				t.Errorf("position %v of a log that no longer exists", id)
			}
			back := register(t, h, hub.Options{User: "42", Resume: last.String()})
			if got, _ := back.drain(); len(got) == 0 || got[0] != "gap feed-reset" && got[0] != "gap unknown-id" {
				t.Errorf("resumed at %v: got %q, want a gap first", last, got)
			}
		})
	}
}

// A client that ends before the hub has reached its id is complete, whatever the hub reads and drops afterwards.
func TestStreamFeedEarlyClientEndsWithoutAGap(t *testing.T) {
	var queries []*hub.Query
	h := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 500}, func(q *hub.Query) { queries = append(queries, q) })
	h.Load(hub.ID{}, hub.ID{Ms: 9}, func(func(hub.Recipient, hub.Entry) bool) {})
	l := register(t, h, hub.Options{User: "42", Resume: "13-0"})
	wantFrames(t, l)
	queries[0].Answer(nil, queries[0].After, 0) // 13-0 is an entry of the log
	l.Finish(hub.ReasonDrain)
	for ms := uint64(13); ms < 22; ms++ {
		h.Append(hub.User("7"), numbered(ms))
	}
	wantFrames(t, l)
	wantReason(t, l, hub.ReasonDrain)
}

// The log's answer is that a client's id is unknown, but meanwhile the hub has read the entry with that id. Then the
// client must not receive a gap. A gap with the client's own id is never sent: a browser that lost it could not
// request it again.
func TestStreamFeedReadsTheEntryBeforeTheAnswer(t *testing.T) {
	for ms, want := range map[uint64][]string{11: nil, 12: {"12"}} {
		h, queries := loadedFeed(t)
		l, q := ask(t, h, queries, "11-0")
		for at := uint64(10); at <= ms; at++ {
			h.Append(hub.User("42"), numbered(at))
		}
		q.Answer(nil, hub.ID{}, hub.GapUnknownID)
		wantFrames(t, l, want...)
		if id, ok := l.Position(); !ok || id != (hub.ID{Ms: ms}) {
			t.Errorf("position %v, %v", id, ok)
		}
	}
}

// A stream may have received the id after which the log continues before the log went backwards. So it must receive a
// gap for the lost entries.
func TestInvariant12IDOfAResetIsFromBeforeIt(t *testing.T) {
	h, _ := loadedFeed(t)
	before := listen(t, h, hub.Options{User: "42"}).Opening().String()
	h.Append(hub.User("42"), numbered(10))
	h.Reset(hub.ID{Ms: 9})
	if before != "9-0" {
		t.Fatalf("opening %s", before)
	}
	wantFrames(t, register(t, h, hub.Options{User: "42", Resume: before}), "gap feed-reset")
}

// A client that has ended receives the entries of the window. The next hub sends the rest, because the browser keeps its
// id.
func TestInvariant12EndedClientSendsNoQuery(t *testing.T) {
	queries := 0
	h := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1000}, func(*hub.Query) { queries++ })
	h.Load(hub.ID{}, hub.ID{Ms: 2}, func(yield func(hub.Recipient, hub.Entry) bool) {
		_ = yield(hub.User("42"), numbered(1)) && yield(hub.User("42"), numbered(2))
	})
	l := register(t, h, hub.Options{User: "42", Resume: "0-0"})
	l.Finish(hub.ReasonDrain)
	for ms := uint64(3); ms < 20; ms++ {
		h.Append(hub.User("7"), numbered(ms))
	}
	wantFrames(t, l)
	if id, ok := l.Position(); ok || queries != 0 {
		t.Errorf("%d queries, position %v (%v)", queries, id, ok)
	}
}
