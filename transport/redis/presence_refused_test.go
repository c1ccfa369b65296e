package redis

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"usercast/internal/redistest"
)

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

// A user may turn presence on with a Redis that does not have the commands, so this is not only a note in the log.
func TestPresenceWithoutACommand(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "EVALSHA", "")
	h := startPresence(t, server.URL(), nil)
	h.open(t, "42")
	h.log.await(t, "WARN redis command unavailable", "command=EVALSHA for presence", "consequence="+"users of this hub are not shown as online")
	eventually(t, "reading is an error", func() bool { // the log line may be about the script that removes users
		_, err := h.Online(t.Context(), []string{"42"})
		return errors.Is(err, errNotRecorded)
	})
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
	if online, err := h.Online(t.Context(), []string{"42"}); err != nil || len(online) != 1 {
		t.Errorf("before the lease ends, online are %q, %v", online, err)
	}
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
	eventually(t, "a hub that has never recorded its users does not know them", func() bool {
		_, err := late.Count(t.Context())
		return errors.Is(err, errNotRecorded)
	})
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
