package redis

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
	"usercast/transport/redis/internal/lease"
)

// outage is longer than a lease of the tests, so that all leases end meanwhile.
const outage = 6 * time.Second

// Leases end while Redis is down. Afterwards, a user who still has a stream must not be published as offline, but one
// who left meanwhile must.
func testOutage(t *testing.T, interrupt func(*redistest.Server), args ...string) (seen *transitionLog) {
	server := redistest.Start(t, args...)
	seen = recordTransitions(t, server.Addr())
	a, b := startPresence(t, server.URL(), nil), startPresence(t, server.URL(), nil)
	for i := range 600 {
		a.open(t, fmt.Sprint("a", i))
		b.open(t, fmt.Sprint("b", i))
	}
	leaves := a.open(t, "leaves")
	eventually(t, "all users are online", func() bool { return len(seen.all()) == 1201 })
	leaves()
	interrupt(server)
	eventually(t, "both hubs count their users again", func() bool {
		n, err := a.Count(t.Context())
		return err == nil && n >= 1200
	})
	// Longer than until the first removal after the outage.
	eventually(t, "the user who left is removed", func() bool {
		n, err := a.Count(t.Context())
		set := server.Do("zcard", presenceKeys.Users)
		return err == nil && n == 1200 && set == int64(1200)
	})
	seen.awaitSweeps(t, b, "new")
	for _, line := range seen.all() {
		if strings.HasSuffix(line, " offline") && line != "leaves offline" && line != "new offline" {
			t.Errorf("published %q", line)
		}
	}
	return seen
}

// A user whose lease has ended is online until hubs that work would have removed the user, whatever the hub that is asked.
func TestLapsedLeasesWhileNoUserIsRemoved(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	commands := NewCommands(parse(t, server.URL(), ServerOptions{}))
	t.Cleanup(commands.Close)
	set := lease.Set{Keys: presenceKeys, Length: 30 * time.Second, Pause: 10 * time.Second}
	do := (&Presence{commands: commands, set: set}).do(t.Context())
	now := time.Now().Unix()
	server.Do("zadd", presenceKeys.Users, now-5, "lapsed", now+25, "leased")
	for _, test := range []struct {
		why, swept string
		lapsed     bool
	}{
		{"no hub has removed users yet", "", true},
		{"the last removal is long ago", fmt.Sprint(now-11, " ", now-100), true},
		{"removal is suspended", fmt.Sprint(now-1, " ", now+20), true},
		{"the clock was set back", fmt.Sprint(now+100, " ", now-100), true},
		{"hubs remove users", fmt.Sprint(now-1, " ", now-100), false},
		{"removal has just begun again", fmt.Sprint(now-1, " ", now-1), false},
	} {
		if test.swept != "" {
			server.Do("set", presenceKeys.Swept, test.swept)
		}
		want := []string{"leased"}
		if test.lapsed {
			want = []string{"lapsed", "leased"}
		}
		online, err := set.Online(t.Context(), do, []string{"lapsed", "absent", "leased"})
		if err != nil || !slices.Equal(online, want) {
			t.Errorf("%s: online are %q, %v", test.why, online, err)
		}
		if n, err := set.Count(t.Context(), do); err != nil || n != len(want) {
			t.Errorf("%s: counted %d, %v", test.why, n, err)
		}
	}
}

// The number of users who are online is not known before the first sweep, nor in an outage.
func TestOnlineUsersAreUnknownWithoutASweep(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Kill()
	h := startPresence(t, server.URL(), nil)
	if n, ok := h.Users(); ok {
		t.Errorf("%d users are online, without Redis", n)
	}
	server.Restart()
	h.open(t, "42")
	eventually(t, "one user was counted", func() bool { return h.count() == 1 })
	server.Kill()
	eventually(t, "the number is unknown", func() bool { return h.count() == -1 })
}

func TestPresenceAfterRedisWasFrozen(t *testing.T) {
	t.Parallel()
	seen := testOutage(t, func(server *redistest.Server) {
		server.Freeze()
		time.Sleep(outage)
		server.Thaw()
	})
	for _, user := range []string{"a0", "b599"} {
		if got := seen.of(user); got != "online" {
			t.Errorf("user %s was published as %q", user, got)
		}
	}
	seen.await(t, "leaves", "online offline")
}

func TestPresenceAfterRedisWasRestartedWithItsData(t *testing.T) {
	t.Parallel()
	seen := testOutage(t, func(server *redistest.Server) {
		server.Kill()
		time.Sleep(outage)
		server.Restart()
	}, "--appendonly", "yes", "--appendfsync", "always")
	for _, user := range []string{"a0", "b599"} {
		if got := seen.of(user); got != "online" {
			t.Errorf("user %s was published as %q", user, got)
		}
	}
}

// Redis has forgotten who was online, so all users are published as online again.
func TestPresenceAfterRedisWasRestartedWithoutItsData(t *testing.T) {
	t.Parallel()
	testOutage(t, (*redistest.Server).Restart)
}

func TestPresenceAfterFlushAll(t *testing.T) {
	t.Parallel()
	seen := testOutage(t, func(server *redistest.Server) { server.Do("flushall") })
	for _, user := range []string{"a0", "b599"} {
		seen.await(t, user, "online online")
	}
}

// Redis loses the set while no hub notices an outage: each hub records its users again at its next sweep.
func TestUsersAreRecordedAgainAfterALossOfData(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	change := func(c *PresenceConfig) { c.lease, c.extendEvery = 2*time.Hour, time.Hour }
	a, b := startPresence(t, server.URL(), change), startPresence(t, server.URL(), change)
	a.open(t, "1")
	b.open(t, "2")
	a.awaitOnline(t, "1", "2")
	eventually(t, "both have swept", func() bool { return a.count() == 2 && b.count() == 2 })
	server.Do("flushall")
	a.awaitOnline(t, "1", "2")
}

// If the clock of Redis was ahead, leases end too late. They are cut when it is right again, also those of users who have left.
func TestClockOfRedisIsSetBack(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	h := startPresence(t, server.URL(), nil)
	h.open(t, "stays")
	h.open(t, "left")()
	seen.await(t, "left", "online")
	seen.await(t, "stays", "online")
	future := time.Now().Add(time.Hour).Unix()
	for _, user := range []string{"stays", "left"} {
		server.Do("zadd", presenceKeys.Users, future, user)
	}
	server.Do("set", presenceKeys.Swept, fmt.Sprint(future, " ", future))
	seen.await(t, "left", "online offline")
	if got := seen.of("stays"); got != "online" {
		t.Errorf("the user with a tab was published as %q", got)
	}
}

// If the clock jumps ahead, all leases seem to have ended.
func TestClockOfRedisIsSetForward(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	// The pass over all users takes longer than until the next sweep.
	h := startPresence(t, server.URL(), func(c *PresenceConfig) { c.extendEvery, c.sweepEvery = 3*time.Second, 500*time.Millisecond })
	for i := range 1200 {
		h.open(t, fmt.Sprint(i))
	}
	h.open(t, "left")()
	eventually(t, "all users are online", func() bool { return len(seen.all()) == 1201 })
	past := time.Now().Add(-time.Hour).Unix()
	server.Do("eval", `for _, user in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do redis.call('ZADD', KEYS[1], ARGV[1], user) end
		redis.call('SET', KEYS[2], ARGV[1] .. ' ' .. ARGV[1])
		return 1`, 2, presenceKeys.Users, presenceKeys.Swept, past)
	seen.await(t, "left", "online offline")
	for i := range 1200 {
		if got := seen.of(fmt.Sprint(i)); got != "online" {
			t.Fatalf("user %d was published as %q", i, got)
		}
	}
}
