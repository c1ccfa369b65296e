package redis

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
)

func disconnect(server *redistest.Server, id, user string) string {
	return server.Do("XADD", "log", id, "ctl", Control{Op: OpDisconnect, User: user}.String()).(string)
}

// beforeTheStart returns an id for an entry from before a feed was started. A feed knows the time of its start by Redis's
// clock only as precisely as Redis replies, and handles commands that may be later.
func beforeTheStart() string { return strconv.FormatInt(time.Now().Add(-time.Minute).UnixMilli(), 10) }

// After the promotion of a replica, entries later than the common ones are a gap for pages. But the control commands
// among them are handled once, if they were not handled before.
func TestControlCommandsBehindAResetAreHandled(t *testing.T) {
	t.Parallel()
	add := func(s *redistest.Server, id string) { addEntry(s, id, "x") }
	for name, test := range map[string]struct {
		after func(replica *redistest.Server)
		want  []string
	}{
		"later ids": {func(replica *redistest.Server) {
			disconnect(replica, "201-0", "after")
			add(replica, "202-0")
			disconnect(replica, "203-0", "after that")
		}, []string{"reset", "disconnect after", "disconnect after that"}},
		// The clock of the promoted replica is slow.
		"ids that were given before": {func(replica *redistest.Server) {
			disconnect(replica, "105-0", "after")
			add(replica, "106-0")
		}, []string{"reset", "disconnect after"}},
		"as many trimmed as were read": {func(replica *redistest.Server) {
			for i := range 6 {
				add(replica, fmt.Sprintf("%d-0", 201+i))
			}
			disconnect(replica, "207-0", "after")
			replica.Do("XTRIM", "log", "MAXLEN", 3)
		}, []string{"reset", "disconnect after"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := redistest.Start(t)
			disconnect(primary, "90-0", "before the start")
			replica := redistest.StartReplica(t, primary)
			relay := redistest.StartRelay(t, primary.Addr())
			f := follow(t, parse(t, relay.URL(), ServerOptions{}), nil)
			add(primary, "101-0")
			disconnect(primary, "102-0", "both")
			add(primary, "103-0")
			disconnect(primary, "104-0", "both, too")
			promote(replica, 5)
			add(primary, "105-0")
			disconnect(primary, "106-0", "only there")
			f.want(t, "old ", "42: x", "disconnect both", "skip", "42: x", "disconnect both, too", "skip", "42: x", "disconnect only there", "skip")
			test.after(replica)
			relay.SetTarget(replica.Addr())
			primary.Kill()
			f.want(t, test.want...)
			add(replica, "301-0")
			f.want(t, "42: x")
		})
	}
}

// The stream was deleted and created again on the same primary.
func TestControlCommandOfARecreatedStreamIsHandled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	f := follow(t, parse(t, server.URL(), ServerOptions{}), nil)
	xadd(server, "user-42", "x")
	f.want(t, "42: x")
	server.Do("EVAL", `redis.call("DEL", KEYS[1])
		for i = 1, 500 do redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", "unread") end
		redis.call("XADD", KEYS[1], "*", "ctl", ARGV[1])
		for i = 1, 500 do redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", "unread") end return 1`,
		1, "log", Control{Op: OpDisconnect, User: "7"}.String())
	f.want(t, "reset", "disconnect 7")
}

// A hub that starts while Redis is down accepts streams. So a command that is appended before the hub's first connection
// must be handled, even if it is older than the window.
func TestControlCommandBeforeTheFirstLoadIsHandled(t *testing.T) {
	t.Parallel()
	server, down := redistest.Start(t), redistest.Start(t)
	down.Kill()
	// A busy server handles INFO late: the time in its reply is later than that of the request.
	const late = 300 * time.Millisecond
	timeOf := regexp.MustCompile(`server_time_usec:(\d+)`)
	relay := redistest.StartDamagingRelay(t, down.Addr(), func(reply []byte) []byte {
		if !timeOf.Match(reply) {
			return reply
		}
		time.Sleep(late)
		return timeOf.ReplaceAllFunc(reply, func(field []byte) []byte {
			us, _ := strconv.ParseInt(string(timeOf.FindSubmatch(field)[1]), 10, 64)
			return fmt.Appendf(nil, "server_time_usec:%d", us+late.Microseconds())
		})
	})
	disconnect(server, beforeTheStart(), "before the start")
	f := followLater(t, parse(t, relay.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes = 1 })
	f.await(t, "a failed try", func() bool {
		f.report.mu.Lock()
		defer f.report.mu.Unlock()
		return f.report.link.last != ""
	})
	disconnect(server, "*", "42")
	disconnect(server, "*", "7")
	relay.SetTarget(server.Addr())
	f.want(t, "disconnect 42", "disconnect 7")
	disconnect(server, "*", "8")
	f.want(t, "disconnect 8", "skip")
}

// However long a stream is read, the trail is bounded. It has most of the newest places, fewer of the older ones, and
// always the oldest.
func TestTrailIsBoundedAndReachesBack(t *testing.T) {
	t.Parallel()
	var l trail
	l.begin(place{hub.ID{Ms: 0, Seq: 1}, 1})
	const n = 100_000
	for i := range n {
		l.add(entry{Entry: hub.Entry{ID: hub.ID{Ms: uint64(i + 1), Seq: 0}}, command: "x"})
	}
	if len(l.places) > maxTrail || l.places[0].id != (hub.ID{Ms: 0, Seq: 1}) {
		t.Fatalf("%d places from %v on", len(l.places), l.places[0].id)
	}
	if !slices.IsSortedFunc(l.places, func(a, b place) int { return a.id.Compare(b.id) }) {
		t.Error("they are not in order")
	}
	for i := 1; i < maxTrail/2; i++ {
		if id := l.places[len(l.places)-i].id; id != (hub.ID{Ms: uint64(n + 1 - i), Seq: 0}) {
			t.Fatalf("the place number %d from the end is %v", i, id)
		}
	}
	l.add(entry{Entry: hub.Entry{ID: hub.ID{Ms: n + 1, Seq: 0}}})
	if id := l.places[len(l.places)-1].id; id != (hub.ID{Ms: n, Seq: 0}) {
		t.Errorf("an entry that is not a command was added within one second: %v", id)
	}
}
