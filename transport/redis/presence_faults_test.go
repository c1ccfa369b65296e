package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis/internal/lease"
)

var presenceKeys = lease.KeysOf("user-")

// outage is longer than a lease of the tests, so that all leases end meanwhile.
const outage = 6 * time.Second

// awaitSweeps waits until users whose lease had ended before this call are removed: it opens and closes a tab of a new user, at
// a hub that works, and waits until that user is published as offline.
func (l *transitionLog) awaitSweeps(t *testing.T, h *presenceHub, user string) {
	t.Helper()
	h.open(t, user)()
	l.await(t, user, "online offline")
}

// A hub that dies does not clean up. Its users go offline, except those who have a tab at another hub.
func TestUsersOfAHubThatDies(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	a, b := startPresence(t, server.URL(), nil), startPresence(t, server.URL(), nil)
	for i := range 1200 { // more than fit into two scripts
		a.open(t, fmt.Sprint("a", i))
	}
	a.open(t, "both")
	b.open(t, "both")
	seen.await(t, "both", "online")
	eventually(t, "all users are online", func() bool { return len(seen.all()) == 1201 })
	a.stop()
	eventually(t, "all users of the hub are offline", func() bool { return len(seen.all()) == 2401 })
	for i := range 1200 {
		seen.await(t, fmt.Sprint("a", i), "online offline")
	}
	if got := seen.of("both"); got != "online" {
		t.Errorf("the user with a tab at the other hub was published as %q", got)
	}
}

// A frozenHub does not return its users while it is frozen, so that its Presence stops.
type frozenHub struct {
	*hub.Hub
	frozen atomic.Pointer[chan struct{}]
}

func (h *frozenHub) Users(part int) []string {
	if frozen := h.frozen.Load(); frozen != nil {
		<-*frozen
	}
	return h.Hub.Users(part)
}

func TestUsersOfAHubThatIsFrozen(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	frozen := &frozenHub{}
	a := startPresence(t, server.URL(), func(c *PresenceConfig) {
		frozen.Hub = c.Hub.(*hub.Hub)
		c.Hub = frozen
	})
	b := startPresence(t, server.URL(), nil)
	a.open(t, "42")
	a.open(t, "both")
	b.open(t, "both")
	seen.await(t, "42", "online")
	thaw := make(chan struct{})
	frozen.frozen.Store(&thaw)
	seen.await(t, "42", "online offline")
	frozen.frozen.Store(nil)
	close(thaw)
	seen.await(t, "42", "online offline online")
	if got := seen.of("both"); got != "online" {
		t.Errorf("the user with a tab at the other hub was published as %q", got)
	}
}

// A hub that is cut off from Redis, while others work, is like one that dies. Its users come online when it is back.
func TestUsersOfAHubThatIsCutOff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	relay := redistest.StartRelay(t, server.Addr())
	a, b := startPresence(t, relay.URL(), nil), startPresence(t, server.URL(), nil)
	a.open(t, "42")
	b.open(t, "7")
	seen.await(t, "42", "online")
	relay.SetTarget("127.0.0.1:1") // refuses connections
	relay.Disconnect()
	seen.await(t, "42", "online offline")
	a.open(t, "late")
	relay.SetTarget(server.Addr())
	seen.await(t, "42", "online offline online")
	seen.await(t, "late", "online")
	if got := seen.of("7"); got != "online" {
		t.Errorf("the user of the other hub was published as %q", got)
	}
	a.log.once(t, "WARN presence update failed, retrying")
}

// The pages of a hub that drains reconnect to another hub: no transition, and no lease is given up.
func TestUsersOfAHubThatDrains(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	a, b := startPresence(t, server.URL(), nil), startPresence(t, server.URL(), nil)
	for i := range 50 {
		user := fmt.Sprint("moves", i)
		end := a.open(t, user)
		seen.await(t, user, "online")
		defer func() {
			if got := seen.of(user); got != "online" {
				t.Errorf("user %s was published as %q", user, got)
			}
		}()
		time.AfterFunc(10*time.Millisecond, func() {
			end()
			b.open(t, user)
		})
	}
	a.open(t, "leaves")
	seen.await(t, "leaves", "online")
	eventually(t, "all have moved", func() bool { return b.hub.Stats().Clients == 50 })
	a.stop()
	seen.await(t, "leaves", "online offline")
}

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

// The only hub is cut off from Redis for longer than a lease. Online and Count still return its users.
func TestUsersOfTheOnlyHubThatIsCutOff(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	seen := recordTransitions(t, server.Addr())
	relay := redistest.StartRelay(t, server.Addr())
	h := startPresence(t, relay.URL(), nil)
	h.open(t, "42")
	h.open(t, "7")
	seen.await(t, "42", "online")
	h.awaitOnline(t, "42", "7")
	commands := NewCommands(parse(t, server.URL(), ServerOptions{}))
	t.Cleanup(commands.Close)
	do := (&Presence{commands: commands, set: h.set}).do(t.Context())
	check := func() {
		t.Helper()
		online, err := h.set.Online(t.Context(), do, []string{"42", "7"})
		n, countErr := h.set.Count(t.Context(), do)
		if err != nil || countErr != nil || len(online) != 2 || n != 2 {
			t.Fatalf("online are %q, %v; counted %d, %v", online, err, n, countErr)
		}
	}
	relay.SetTarget("127.0.0.1:1") // refuses connections
	relay.Disconnect()
	for begin := time.Now(); time.Since(begin) < outage+time.Second; time.Sleep(20 * time.Millisecond) {
		check()
	}
	relay.SetTarget(server.Addr())
	eventually(t, "the leases are extended", func() bool {
		check()
		if n := h.count(); n >= 0 && n != 2 {
			t.Errorf("the hub counted %d users", n)
		}
		return server.Do("zcount", presenceKeys.Users, time.Now().Unix()+2, "+inf") == int64(2)
	})
	if got := strings.Join(seen.all(), ", "); strings.Contains(got, "offline") {
		t.Errorf("published %s", got)
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

func TestPresenceFollowsSentinels(t *testing.T) {
	t.Parallel()
	w := startWatched(t)
	url := sentinelURL(w.sentinels...)
	a, b := startPresence(t, url, nil), startPresence(t, url, nil)
	a.open(t, "1")
	b.open(t, "2")
	a.awaitOnline(t, "1", "2")
	w.primary.Kill()
	var promoted *redistest.Server
	eventually(t, "a replica is promoted", func() bool {
		promoted = w.servers[w.sentinels[0].PrimaryOf("main")]
		return promoted != w.primary && strings.Contains(promoted.Do("info", "replication").(string), "role:master")
	})
	seen := recordTransitions(t, promoted.Addr())
	end := a.open(t, "3")
	seen.await(t, "3", "online")
	a.awaitOnline(t, "1", "2", "3")
	end()
	seen.await(t, "3", "online offline")
	for _, user := range []string{"1", "2"} {
		if got := seen.of(user); got != "" {
			t.Errorf("user %s was published as %q after the failover", user, got)
		}
	}
	b.awaitOnline(t, "1", "2")
}

// In a cluster, messages of the scripts reach the subscribers of all nodes, the keys may move to another node, and their
// primary may fail.
func TestPresenceInACluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	slot := nodes[0].Do("cluster", "keyslot", presenceKeys.Users)
	if got := nodes[0].Do("cluster", "keyslot", presenceKeys.Swept); got != slot {
		t.Fatalf("the keys have the slots %v and %v", slot, got)
	}
	var seen []*transitionLog
	for _, node := range nodes {
		seen = append(seen, recordTransitions(t, node.Addr()))
	}
	a, b := startPresence(t, clusterURL("", nodes...), nil), startPresence(t, clusterURL("", nodes[1]), nil)
	a.open(t, "1")
	b.open(t, "2")
	left := b.open(t, "3")
	for _, l := range seen {
		for _, user := range []string{"1", "2", "3"} {
			l.await(t, user, "online")
		}
	}
	left()
	for _, l := range seen {
		l.await(t, "3", "online offline")
	}

	from := int(slot.(int64)) * 3 / 16384
	to := (from + 1) % 3
	nodes[to].Do("cluster", "setslot", slot, "importing", nodes[from].Do("cluster", "myid"))
	nodes[from].Do("cluster", "setslot", slot, "migrating", nodes[to].Do("cluster", "myid"))
	host, port := nodes[to].HostPort()
	nodes[from].Do("migrate", host, port, "", 0, 5000, "auth2", "redistest", "redistest", "keys", presenceKeys.Users, presenceKeys.Swept)
	end := a.open(t, "during")
	seen[0].await(t, "during", "online") // with ASK
	for _, i := range []int{to, from} {
		nodes[i].Do("cluster", "setslot", slot, "node", nodes[to].Do("cluster", "myid"))
	}
	end()
	for _, l := range seen {
		l.await(t, "during", "online offline")
		if got := l.of("1") + " " + l.of("2"); got != "online online" {
			t.Errorf("users 1 and 2 were published as %q", got)
		}
	}
	if n := nodes[to].Do("zcard", presenceKeys.Users); n != int64(2) {
		t.Errorf("the new node has %v users", n)
	}

	replica := redistest.AddClusterReplica(t, nodes[to], 3)
	replica.Await("it has the users", func() bool {
		return strings.Contains(replica.Do("info", "keyspace").(string), "keys=2")
	})
	nodes[to].Kill()
	eventually(t, "the replica is promoted", func() bool {
		return strings.Contains(replica.Do("info", "replication").(string), "role:master")
	})
	a.open(t, "after")
	seen[from].await(t, "after", "online")
	a.awaitOnline(t, "1", "2", "after")
	if got := seen[from].of("1") + " " + seen[from].of("2"); got != "online online" {
		t.Errorf("users 1 and 2 were published as %q", got)
	}
}

// Streams do not depend on a Redis that replies to everything except scripts.
func TestPresenceThatHangsDoesNotDelayStreams(t *testing.T) {
	t.Parallel()
	hung := make(chan struct{}, 1000)
	addr := redistest.StartFake(t, func(command ...string) string {
		switch strings.ToLower(command[0]) {
		case "hello":
			return "-ERR unknown command 'hello'"
		case "eval", "evalsha":
			hung <- struct{}{}
			return ""
		}
		return "+OK"
	}, false)
	h := startPresence(t, "redis://"+addr, nil)
	<-hung
	start := time.Now()
	for i := range 10_000 {
		h.open(t, fmt.Sprint(i))
		if n := h.hub.Publish(hub.User(fmt.Sprint(i)), "", "x"); n != 1 {
			t.Fatalf("a message reached %d streams", n)
		}
	}
	if took := time.Since(start); took > 3*time.Second { // less than one timeout of a script
		t.Errorf("10,000 streams took %v", took)
	}
	h.log.await(t, "WARN presence update failed, retrying", "reason=silent")
	h.log.warnings(t, 1)
}

// While a script fails, users who arrive do not cause attempts in addition to those after each pause: an outage is when many
// streams are opened.
func TestArrivalsDoNotShortenThePauseAfterAFailure(t *testing.T) {
	t.Parallel()
	var extensions, sweeps atomic.Int32
	addr := redistest.StartFake(t, func(command ...string) string {
		switch strings.ToLower(command[0]) {
		case "hello":
			return "-ERR unknown command 'hello'"
		case "eval", "evalsha":
			switch command[2] { // number of keys
			case "1":
				extensions.Add(1)
			case "2":
				sweeps.Add(1)
			}
			return "-NOPERM no permissions"
		}
		return "+OK"
	}, false)
	h := startPresence(t, "redis://"+addr, func(c *PresenceConfig) {
		c.extendEvery, c.sweepEvery, c.gather = time.Hour, 20*time.Millisecond, time.Millisecond
	})
	h.open(t, "first")
	eventually(t, "it is tried", func() bool { return extensions.Load() > 0 })
	for i := range 10 {
		h.open(t, fmt.Sprint(i))
		before := sweeps.Load()
		eventually(t, "the time to gather arrivals has passed", func() bool { return sweeps.Load() >= before+2 })
	}
	if n := extensions.Load(); n != 1 {
		t.Errorf("%d attempts within the pause after the first one", n)
	}
}

// Each permission that is missing is named once, with what to grant; then it works without a restart.
func TestMissingPermissionsForPresence(t *testing.T) {
	t.Parallel()
	// If the permission is granted between the failure and the search for what is missing, "presence update failed" is logged.
	named := func(t *testing.T, log *logbook, want int) {
		t.Helper()
		if n := log.count("WARN redis permission missing"); n != want {
			t.Errorf("%d missing permissions are named, want %d", n, want)
		}
	}
	all := map[string]string{ // what is named, what to grant
		"PUBLISH to usercast:user-presence": "+publish &usercast:user-presence",
	}
	for _, command := range []string{"EVAL", "EVALSHA", "TIME", "ZMSCORE", "ZADD", "ZRANGEBYSCORE", "ZREM", "ZCOUNT", "GET", "SET"} {
		all[command+" for presence"] = "+" + strings.ToLower(command)
	}
	commands := func(except string) (rules []any) {
		for command, grant := range all {
			if command != except {
				rules = append(rules, strings.Fields(grant)[0])
			}
		}
		return rules
	}
	for missing, grant := range all {
		t.Run(missing, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.Do(append([]any{"acl", "setuser", "app", "on", ">secret", "resetkeys", "resetchannels", "-@all", "+client|setname", "+ping",
				"~usercast:user-online", "~{usercast:user-online}:swept", "&usercast:user-presence"}, commands(missing)...)...)
			h := startPresence(t, "redis://app:secret@"+server.Addr(), shortLease)
			h.open(t, "42")
			h.open(t, "left")() // it must be removed
			h.log.await(t, "WARN redis permission missing", "command="+missing, "hint=ACL SETUSER app "+grant)
			calls := callsOf(t, server, "evalsha") + callsOf(t, server, "eval")
			eventually(t, "it is tried again", func() bool { return callsOf(t, server, "evalsha")+callsOf(t, server, "eval") > calls+2 })
			named(t, h.log, 1)
			seen := recordTransitions(t, server.Addr())
			for _, rule := range strings.Fields(grant) {
				if strings.HasPrefix(rule, "+") {
					server.Do("acl", "setuser", "app", rule)
				}
			}
			seen.awaitSweeps(t, h, "new")
			h.awaitOnline(t, "42")
			named(t, h.log, 1)
		})
	}
	t.Run("keys and channel", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		server.Do(append([]any{"acl", "setuser", "app", "on", ">secret", "resetkeys", "resetchannels", "-@all", "+client|setname", "+ping"}, commands("")...)...)
		h := startPresence(t, "redis://app:secret@"+server.Addr(), shortLease)
		end := h.open(t, "42")
		for _, key := range []string{"usercast:user-online", "{usercast:user-online}:swept"} {
			h.log.await(t, "WARN redis permission missing", "command=commands on "+key, "hint=ACL SETUSER app ~"+key)
		}
		server.Do("acl", "setuser", "app", "~usercast:user-online", "~{usercast:user-online}:swept")
		h.log.await(t, "WARN redis permission missing", "command=PUBLISH to usercast:user-presence", "hint=ACL SETUSER app +publish &usercast:user-presence")
		h.awaitOnline(t, "42") // also without messages
		end()
		eventually(t, "the user is removed", func() bool { return server.Do("exists", presenceKeys.Users) == int64(0) })
		named(t, h.log, 3)
	})
}

// shortLease is for tests of one hub, in which users may go offline if this machine stalls.
func shortLease(c *PresenceConfig) {
	c.lease, c.extendEvery, c.sweepEvery = time.Second, 300*time.Millisecond, 800*time.Millisecond
}

// The key of another program is not touched, and the reason is logged once per script.
func TestPresenceKeyOfAnotherType(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("set", presenceKeys.Users, "x")
	h := startPresence(t, server.URL(), nil)
	h.open(t, "42")
	h.log.await(t, "WARN presence update failed, retrying", "key="+presenceKeys.Users, "hint=delete that key, or use another --channel-prefix", "WRONGTYPE")
	if _, err := h.Count(t.Context()); err == nil || !strings.Contains(err.Error(), "has another type than hubs use; delete that key") {
		t.Errorf("counted: %v", err)
	}
	calls := callsOf(t, server, "evalsha")
	eventually(t, "it is tried again", func() bool { return callsOf(t, server, "evalsha") > calls+3 })
	h.log.warnings(t, 1)
	server.Do("del", presenceKeys.Users)
	h.awaitOnline(t, "42")
	h.log.await(t, "INFO presence update recovered")
	h.log.once(t, "INFO presence update recovered")
}

// While Redis refuses to write, reading does not return fewer users than are online.
func TestPresenceWithoutMemory(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := startPresence(t, server.URL(), nil)
	end := h.open(t, "42")
	h.awaitOnline(t, "42")
	server.Do("config", "set", "maxmemory", "1")
	h.log.await(t, "WARN presence update failed, retrying", "key="+presenceKeys.Users, "reason=memory", "hint=raise maxmemory in Redis")
	h.open(t, "7")
	eventually(t, "the users that are online are not known", func() bool {
		online, err := h.Online(t.Context(), []string{"42", "7"})
		if err == nil && !slices.Equal(online, []string{"42"}) {
			t.Fatalf("online are %q", online)
		}
		n, errCount := h.Count(t.Context())
		if errCount == nil && n != 1 {
			t.Fatalf("counted %d", n)
		}
		return errors.Is(err, errNotRecorded) && errors.Is(errCount, errNotRecorded)
	})
	late := startPresence(t, server.URL(), nil)
	late.open(t, "late")
	late.log.await(t, "WARN presence update failed, retrying", "reason=memory")
	if _, err := late.Count(t.Context()); !errors.Is(err, errNotRecorded) {
		t.Errorf("a hub that has never recorded its users counted them: %v", err)
	}
	end() // one hub has a user less to extend
	server.Do("config", "set", "maxmemory", "0")
	h.awaitOnline(t, "7")
	h.log.await(t, "INFO presence update recovered")
	late.awaitOnline(t, "7", "late")
}

// A hub that has nothing to extend recovers, too.
func TestPresenceWithoutMemoryAndWithoutUsers(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("config", "set", "maxmemory", "1")
	h := startPresence(t, server.URL(), nil)
	end := h.open(t, "42")
	h.log.await(t, "WARN presence update failed, retrying", "reason=memory")
	end()
	server.Do("config", "set", "maxmemory", "0")
	h.log.await(t, "INFO presence update recovered")
	if _, err := h.Count(t.Context()); err != nil {
		t.Error(err)
	}
}

// A user may turn presence on with a Redis that does not have the commands, so this is not only a note in the log.
func TestPresenceWithoutACommand(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "EVALSHA", "")
	h := startPresence(t, server.URL(), nil)
	h.open(t, "42")
	h.log.await(t, "WARN redis command unavailable", "command=EVALSHA for presence", "consequence="+"users of this hub are not shown as online")
	if _, err := h.Online(t.Context(), []string{"42"}); !errors.Is(err, errNotRecorded) {
		t.Errorf("reading returned %v", err)
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

// The set is in the database of the URL.
func TestPresenceInADatabase(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := startPresence(t, server.URL()+"/3", nil)
	h.open(t, "42")
	h.awaitOnline(t, "42")
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), DB: 3, Protocol: 2, DisableIdentity: true})
	defer client.Close()
	if n, err := client.ZCard(context.Background(), "usercast:user-online").Result(); n != 1 || err != nil {
		t.Errorf("database 3 has %d users, %v", n, err)
	}
	if n := server.Do("exists", presenceKeys.Users); n != int64(0) {
		t.Error("database 0 has the set")
	}
}

func TestPresenceKeysHaveOneSlot(t *testing.T) {
	t.Parallel()
	for prefix, valid := range map[string]bool{
		"user-": true, "{app}user-": true, "app:{x}:": true, "a{b": true, "a}b": false, "{}x": false, "}": false,
	} {
		err := ValidatePresence(prefix)
		if (err == nil) != valid {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}
