package hub_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

// A user who reconnects repeatedly does not use more memory than one who left once.
func TestUserWhoLeavesRepeatedlyIsRetainedOnce(t *testing.T) {
	const streams = 50_000
	h := withHistory(t, nil)
	before := heap()
	for range streams {
		register(t, h, hub.Options{User: "42"}).End(hub.ReasonClosed)
	}
	if grown := heap() - before; grown > 128<<10 {
		t.Errorf("%d streams one after the other: the heap has grown by %d KiB, %d are accounted for", streams, grown>>10, h.Stats().HistoryBytes)
	}
	runtime.KeepAlive(h)
}

// Users without a client count towards the bytes of the history, including their names.
func TestNamesOfRetainedUsersCount(t *testing.T) {
	const limit = 1 << 20
	h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = limit })
	before := heap()
	for i := range 10_000 {
		register(t, h, hub.Options{User: fmt.Sprint(i, strings.Repeat("x", 4096))}).End(hub.ReasonClosed)
	}
	if grown := heap() - before; grown > 2*limit {
		t.Errorf("the heap has grown by %d KiB with a history of %d KiB", grown>>10, limit>>10)
	}
	runtime.KeepAlive(h)
}

// Invariant 8: a user without a stream, or a group without a member, does not occupy memory after the age of the history, and
// neither does a message for it. With a StreamFeed, this holds as soon as the window has no entries of it.
func TestInvariant8UserPastTheAgeOccupiesNoMemory(t *testing.T) {
	const users = 50_000
	name := func(i int) string { return fmt.Sprint("user-", i) }
	comeAndLeave := func(t *testing.T, h registry, use func(name string)) (before, peak int64) {
		before = heap()
		all := make([]*hub.Client, users)
		for i := range all {
			c, err := h.Register(hub.Options{User: name(i), Groups: []string{name(i)}, Topics: []string{name(i)}, Consumer: idleConsumer{}})
			if err != nil {
				t.Fatal(err)
			}
			c.Take(nil)
			all[i] = c
		}
		for i, c := range all {
			use(name(i))
			c.End(hub.ReasonClosed)
		}
		clear(all)
		return before, heap()
	}
	check := func(t *testing.T, h *hub.PubSub, before, peak int64) {
		t.Helper()
		if s := h.Stats(); s.HistoryBytes != 0 || s.HistoryEntries != 0 || s.Users != 0 || s.Groups != 0 {
			t.Errorf("%d bytes and %d entries of history, %d users, %d groups", s.HistoryBytes, s.HistoryEntries, s.Users, s.Groups)
		}
		for i := range users {
			h.Publish(hub.User(name(i)), "", "for a user without a stream")
			h.Publish(hub.Group(name(i)), "", "for a group without a member")
		}
		// The messages are in the ring, which has a fixed number of bytes for all users.
		if stay := heap() - before - h.Stats().HistoryBytes; stay > (peak-before)/50 {
			t.Errorf("%d bytes per user stay, of %d", stay/users, (peak-before)/users)
		}
		runtime.KeepAlive(h)
	}
	t.Run("pub/sub", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = 1 << 30; c.HistoryAge = time.Minute })
			before, peak := comeAndLeave(t, h, func(name string) {
				h.Publish(hub.User(name), "", "kept for a while")
				h.Publish(hub.Group(name), "", "kept for a while")
			})
			time.Sleep(2 * time.Minute)
			check(t, h, before, peak)
		})
	})
	t.Run("log", func(t *testing.T) {
		h := newStreamFeed(t, hub.Config{BroadcastUser: "*", HistoryBytes: 1 << 30}, func(*hub.Query) {})
		h.Load(hub.ID{}, hub.ID{}, func(func(hub.Recipient, hub.Entry) bool) {})
		id := hub.ID{}
		before, peak := comeAndLeave(t, h, func(name string) {
			for _, to := range []hub.Recipient{hub.User(name), hub.Group(name)} {
				id.Ms++
				h.Append(to, hub.Entry{ID: id, Payload: "in the window"})
			}
		})
		h.Reset(id) // the window is empty
		if s := h.Stats(); s.HistoryBytes != 0 || s.HistoryEntries != 0 {
			t.Errorf("%d bytes and %d entries of history", s.HistoryBytes, s.HistoryEntries)
		}
		if stay := heap() - before; stay > (peak-before)/50 {
			t.Errorf("%d bytes per user stay, of %d", stay/users, (peak-before)/users)
		}
		runtime.KeepAlive(h)
	})
}

// A group whose number of clients has dropped sharply does not keep memory for all of them.
func TestGroupThatShrinksReleasesMemory(t *testing.T) {
	t.Parallel()
	h := newPubSub(t, hub.Config{})
	var all []*listener
	for range 10_000 {
		all = append(all, register(t, h, hub.Options{User: "42", Groups: []string{"g"}}))
	}
	for _, l := range all[1:] {
		l.End(hub.ReasonClosed)
	}
	if n := hub.CapacityFor(h.Hub, hub.Group("g")); n > 1024 {
		t.Errorf("a group with one client has memory for %d", n)
	}
}

// A message does not wait until very many old users have been removed.
func TestSweepDoesNotDelayOthers(t *testing.T) {
	const users = 100_000
	h := withHistory(t, func(c *hub.Config) { c.HistoryBytes = 1 << 30; c.HistoryAge = 300 * time.Millisecond })
	hub.PauseSweep(h.Hub, true)
	for i := range users {
		register(t, h, hub.Options{User: fmt.Sprint(i)}).End(hub.ReasonClosed)
	}
	time.Sleep(300 * time.Millisecond) // all users are too old now
	all, parts := h.Stats().HistoryBytes, 0
	hub.PauseSweep(h.Hub, false)
	for left := all; left > 0; left = h.Stats().HistoryBytes {
		if left < all {
			parts++
		}
	}
	if parts == 0 {
		t.Errorf("%d users are removed without releasing the lock", users)
	}
}
