package inspect

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis"
	"usercast/transport/redis/internal/topology"
)

// inspected contains the findings of an Inspection.
type inspected []Finding

func run(t *testing.T, server *redis.Server, change func(*Inspection)) (found inspected) {
	t.Helper()
	i := Inspection{Server: server, Channels: redis.Channels{Users: "user-"}, ControlChannel: redis.ControlChannel("user-"), MaxPayload: 1 << 20}
	if change != nil {
		change(&i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	i.Run(ctx, func(f Finding) { found = append(found, f) })
	for _, f := range found {
		if f.Level >= Warn && f.Do == "" {
			t.Errorf("%s: no advice", f.Name)
		}
	}
	return found
}

// patience is the timeout for expected events.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}

func parse(t *testing.T, url string, opts redis.ServerOptions) *redis.Server {
	t.Helper()
	s, err := redis.ParseServer(url, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestMain(m *testing.M) {
	redis.DisableClientLog()
	m.Run()
}

// testHub is a hub without streams.
type testHub struct {
	loaded atomic.Int64 // entries
}

func (h *testHub) Disconnect(string) int               { return 0 }
func (h *testHub) BroadcastUser() string               { return "*" }
func (h *testHub) Append(hub.Recipient, hub.Entry) int { return 0 }
func (h *testHub) Lose(hub.ID)                         {}
func (h *testHub) Reset(hub.ID)                        {}
func (h *testHub) Load(_, _ hub.ID, entries iter.Seq2[hub.Recipient, hub.Entry]) {
	for range entries {
		h.loaded.Add(1)
	}
}

// warnings is a logger whose warnings fail the test.
func warnings(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(failingWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type failingWriter struct{ t *testing.T }

func (w failingWriter) Write(line []byte) (int, error) {
	w.t.Errorf("the feed logged %s", line)
	return len(line), nil
}

// startFeed runs a pub/sub feed that must not log warnings, and waits until it is subscribed.
func startFeed(t *testing.T, server *redis.Server) (feed *redis.PubSub, stop func()) {
	t.Helper()
	f, err := redis.NewPubSub(redis.PubSubConfig{
		Server: server, Hub: hub.NewPubSub(hub.Config{}), Logger: warnings(t),
		ProbeEvery: 20 * time.Millisecond, PingAfter: 20 * time.Millisecond,
	})
	stop = runFeed(t, f, err)
	eventually(t, "it was subscribed", func() bool { return f.Stats().Connected })
	return f, stop
}

func runFeed(t *testing.T, f interface{ Run(context.Context) error }, err error) (stop func()) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Run(ctx) })
	stop = func() { cancel(); running.Wait() }
	t.Cleanup(stop)
	return stop
}

func ofStream(i *Inspection) { i.StreamKey = "usercast:log" }

// withPresence adds presence to a change.
func withPresence(change func(*Inspection)) func(*Inspection) {
	return func(i *Inspection) {
		i.Presence = true
		if change != nil {
			change(i)
		}
	}
}

// startPresence runs a Presence without permissions missing, until a user is online.
func startPresence(t *testing.T, server *redis.Server, user string) {
	t.Helper()
	commands := redis.NewCommands(server)
	defer commands.Close()
	h := hub.NewPubSub(hub.Config{})
	defer h.Close()
	p, err := redis.NewPresence(redis.PresenceConfig{Commands: commands, Hub: h.Hub, Logger: warnings(t)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	defer running.Wait()
	defer cancel()
	if _, err := h.Register(hub.Options{User: user, Consumer: idleConsumer{}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, user+" is online and was counted", func() bool {
		online, err := p.Online(ctx, []string{user})
		n, countErr := p.Count(ctx)
		swept, _ := p.Users()
		return err == nil && countErr == nil && len(online) == 1 && n > 0 && swept > 0
	})
}

type idleConsumer struct{}

func (idleConsumer) Wake()      {}
func (idleConsumer) Interrupt() {}

func (f inspected) String() string {
	var b strings.Builder
	for _, one := range f {
		fmt.Fprintf(&b, "\n  %-4s %s: %s → %s", one.Level, one.Name, one.What, one.Do)
	}
	return b.String()
}

// find returns the only finding with the name.
func (f inspected) find(t *testing.T, name string) Finding {
	t.Helper()
	i := slices.IndexFunc(f, func(one Finding) bool { return one.Name == name })
	if i < 0 {
		t.Fatalf("no %s in %v", name, f)
	}
	return f[i]
}

func (f inspected) want(t *testing.T, level Level, name, text string) {
	t.Helper()
	if one := f.find(t, name); one.Level != level || !strings.Contains(one.What+" → "+one.Do, text) {
		t.Errorf("want %s %s with %q, in %v", level, name, text, f)
	}
}

// bad returns the names of findings that are worse than a note.
func (f inspected) bad() (names []string) {
	for _, one := range f {
		if one.Level > Note {
			names = append(names, one.Name)
		}
	}
	return names
}

func (f inspected) wantGood(t *testing.T) {
	t.Helper()
	if bad := f.bad(); len(bad) > 0 {
		t.Errorf("%v are bad, in %v", bad, f)
	}
	f.want(t, OK, "redis-acl", "all permissions")
}

func TestInspectionOfAGoodRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	target := parse(t, server.URL(), redis.ServerOptions{})
	found := run(t, target, nil)
	found.wantGood(t)
	found.want(t, OK, "redis-version", "Redis ")
	found.want(t, OK, "redis-role", "primary")
	found.want(t, OK, "redis-buffer", "pubsub 32mb 8mb 60")
	found.want(t, OK, "redis-echo", "was received")
	found.want(t, Note, "redis-hubs", "no hub")

	// With a running hub, which receives one unrouted message and no control command.
	h, stop := startFeed(t, target)
	defer stop()
	found = run(t, target, nil)
	found.wantGood(t)
	found.want(t, OK, "redis-hubs", "one other client")
	eventually(t, "the hub has received it", func() bool { return h.Stats().Unrouted > 0 })
	if s := h.Stats(); s.Received != 1 || s.ControlReceived != 0 {
		t.Errorf("stats %+v", s)
	}

	found = run(t, target, ofStream)
	found.wantGood(t)
	found.want(t, Note, "redis-stream", "is empty")
	if n := server.Do("dbsize"); n != int64(0) {
		t.Errorf("%v keys were made", n)
	}
	server.Do("xadd", "usercast:log", "1-1", "ch", "user-42", "data", "old")
	found = run(t, target, ofStream)
	found.wantGood(t)
	found.want(t, OK, "redis-stream", "1 entries")
	found.want(t, Note, "redis-trim", "MINID")
	if n := server.Do("xlen", "usercast:log"); n != int64(1) {
		t.Errorf("%v entries", n)
	}
}

// documentedPermissions returns the ACL lines of docs/redis.md, without the user's name and password. docs/security.md must
// have the same lines.
func documentedPermissions(t *testing.T) (lines [][]any) {
	t.Helper()
	lines = permissionsIn(t, "../../../docs/redis.md")
	if len(lines) != 2 {
		t.Fatalf("docs/redis.md has %d lines of permissions", len(lines))
	}
	if others := permissionsIn(t, "../../../docs/security.md"); !reflect.DeepEqual(others, lines) {
		t.Errorf("docs/security.md has the permissions %v, docs/redis.md %v", others, lines)
	}
	return lines
}

// permissionsIn returns the ACL lines of a page.
func permissionsIn(t *testing.T, file string) (lines [][]any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if permissions, ok := strings.CutPrefix(line, "    ACL SETUSER usercast on >PASSWORD "); ok {
			var args []any
			for _, permission := range strings.Fields(permissions) {
				args = append(args, permission)
			}
			lines = append(lines, args)
		}
	}
	return lines
}

// setUser adds permissions to the user app.
func setUser(server *redistest.Server, permissions ...any) {
	server.Do(slices.Concat([]any{"acl", "setuser", "app", "on", ">secret"}, permissions)...)
}

func TestDocumentedPermissionsAreSufficient(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	target := parse(t, "redis://app:secret@"+server.Addr(), redis.ServerOptions{})
	lines := documentedPermissions(t)

	setUser(server, lines[0]...)
	run(t, target, nil).wantGood(t)
	h, stop := startFeed(t, target)
	eventually(t, "a probe and its own marker were received", func() bool {
		s := h.Stats()
		return s.Probe.Count > 0 && s.Hubs[0].Age >= 0
	})
	stop()

	setUser(server, lines[1]...)
	run(t, target, ofStream).wantGood(t)
	commands := redis.NewCommands(target)
	defer commands.Close()
	if _, err := commands.Append(context.Background(), "usercast:log", "user-42", "x"); err != nil {
		t.Error(err)
	}
	followed := new(testHub)
	f, err := redis.NewStreamFeed(redis.StreamConfig{Server: target, Hub: followed, Logger: warnings(t)})
	stop = runFeed(t, f, err)
	eventually(t, "the entry was loaded", func() bool { return followed.loaded.Load() == 1 })
	stop()

	// With presence, it prints a longer line, with which presence works.
	for i, change := range []func(*Inspection){withPresence(nil), withPresence(ofStream)} {
		setUser(server, "reset", "on", ">secret")
		var args []any
		for _, word := range strings.Fields(run(t, target, change).find(t, "redis-acl").Do) {
			args = append(args, word)
		}
		setUser(server, "reset", "on", ">secret")
		server.Do(args...)
		run(t, target, change).wantGood(t)
		startPresence(t, target, fmt.Sprint("user ", i))
	}

	// The inspection prints the same line.
	for i, change := range []func(*Inspection){nil, ofStream} {
		setUser(server, "reset", "on", ">secret")
		line := run(t, target, change).find(t, "redis-acl").Do
		want := fmt.Sprintf("ACL SETUSER app %s", strings.Trim(fmt.Sprint(lines[i]), "[]"))
		if line != want {
			t.Errorf("it prints\n%s\nand the docs have\n%s", line, want)
		}
	}
}

// Each missing permission is reported, with the command that grants it.
func TestInspectionReportsMissingPermissions(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	target := parse(t, "redis://app:secret@"+server.Addr(), redis.ServerOptions{})
	lines := documentedPermissions(t)
	for _, c := range []struct {
		stream  bool
		without []any
		level   Level
		name    string
		do      string
	}{
		{false, []any{"-psubscribe"}, Fail, "redis-right-psubscribe", "app +psubscribe"},
		{false, []any{"resetchannels", "&usercast:user-*"}, Fail, "redis-right-psubscribe", "app &user-*"},
		{false, []any{"resetchannels", "&user-*", "&usercast:user-probe:*"}, Fail, "redis-right-subscribe", "app &usercast:user-control"},
		{false, []any{"resetchannels", "&user-*", "&usercast:user-control"}, Warn, "redis-right-subscribe", "app &usercast:user-probe:*"},
		{false, []any{"-subscribe"}, Fail, "redis-right-subscribe", "app +subscribe"},
		{false, []any{"-publish"}, Warn, "redis-right-publish", "app +publish"},
		{false, []any{"-ping"}, Warn, "redis-right-ping", "app +ping"},
		{false, []any{"-info"}, Warn, "redis-right-info", "app +info"},
		{false, []any{"-client|setname"}, Warn, "redis-right-client", "app +client|setname"},
		{true, []any{"-xread"}, Fail, "redis-right-xread", "app +xread"},
		{true, []any{"-xrange"}, Fail, "redis-right-xrange", "app +xrange"},
		{true, []any{"-xrevrange"}, Fail, "redis-right-xrevrange", "app +xrevrange"},
		{true, []any{"-xinfo|stream"}, Fail, "redis-right-xinfo", "app +xinfo|stream"},
		{true, []any{"-xlen"}, Warn, "redis-right-xlen", "app +xlen"},
		{true, []any{"-xadd"}, Warn, "redis-right-xadd", "app +xadd"},
		{true, []any{"resetkeys"}, Fail, "redis-right-xinfo", "app ~usercast:log"},
	} {
		change, line := (func(*Inspection))(nil), lines[0]
		if c.stream {
			change, line = ofStream, lines[1]
		}
		t.Run(fmt.Sprint(c.without...), func(t *testing.T) {
			setUser(server, slices.Concat(line, c.without)...)
			found := run(t, target, change)
			found.want(t, c.level, c.name, c.do)
			// The reported commands are sufficient, one by one and all together.
			for _, all := range []bool{false, true} {
				setUser(server, slices.Concat(line, c.without)...)
				for _, f := range found {
					if strings.HasPrefix(f.Do, "ACL SETUSER ") && (f.Name == "redis-acl") == all {
						var args []any
						for _, arg := range strings.Fields(f.Do) {
							args = append(args, arg)
						}
						server.Do(args...)
					}
				}
				run(t, target, change).wantGood(t)
			}
		})
	}
}

// A hub with groups needs the same permissions for the channels of groups.
func TestInspectionReportsMissingPermissionsForGroups(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	target := parse(t, "redis://app:secret@"+server.Addr(), redis.ServerOptions{})
	withGroups := func(i *Inspection) { i.Channels.Groups = "group-" }
	const commands = "-@all +psubscribe +subscribe +publish +ping +info +client|setname"
	users := "resetkeys resetchannels &user-* &usercast:user-* " + commands
	both := "resetkeys resetchannels &group-* &user-* &usercast:user-* " + commands
	set := func(permissions string) {
		var args []any
		for permission := range strings.FieldsSeq(permissions) {
			args = append(args, permission)
		}
		setUser(server, args...)
	}
	set(both)
	found := run(t, target, withGroups)
	found.wantGood(t)
	found.want(t, OK, "redis-echo", "was received")
	for _, permissions := range []string{users, strings.Replace(both, "&user-* ", "", 1)} {
		set(permissions)
		found = run(t, target, withGroups)
		found.want(t, Fail, "redis-right-psubscribe", "app &group-* &user-*")
		found.want(t, Warn, "redis-right-publish", "ACL SETUSER app &")
		found.want(t, Note, "redis-acl", "ACL SETUSER app "+both)
		for _, f := range found {
			if strings.Contains(f.What, "/messages") && strings.Contains(f.What, "/api/groups/") != strings.Contains(f.Do, "&group-*") {
				t.Errorf("%+v", f)
			}
			if f.Name == "redis-right-subscribe" {
				t.Errorf("one reply was read as two: %+v", f)
			}
		}
		if n := server.Do("pubsub", "numpat"); n != int64(0) {
			t.Errorf("%v patterns", n)
		}
	}
	set(users)
	run(t, target, nil).wantGood(t)
}

// The hub receives one unrouted message to a user and one to a group, in a fleet with this group prefix.
func TestInspectionOfAFleetWithGroups(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	target := parse(t, server.URL(), redis.ServerOptions{})
	feed, err := redis.NewPubSub(redis.PubSubConfig{
		Server: target, Hub: hub.NewPubSub(hub.Config{}), Logger: warnings(t), Channels: redis.Channels{Groups: "group-"}, Name: "a", Version: "1",
	})
	defer runFeed(t, feed, err)()
	eventually(t, "it was subscribed", func() bool { return feed.Stats().Connected })
	for groups, want := range map[string]struct {
		warning  string
		unrouted uint64
	}{
		"group-": {"", 2},
		"":       {"use the same --group-prefix", 1},
		"team-":  {"use the same --group-prefix", 1},
	} {
		before := feed.Stats().Unrouted
		var found inspected
		i := Inspection{Server: target, Channels: redis.Channels{Users: "user-", Groups: groups, Separator: ':'}, ControlChannel: redis.ControlChannel("user-"), MaxPayload: 1 << 20}
		fleet := i.Run(t.Context(), func(f Finding) { found = append(found, f) })
		found.wantGood(t)
		fleet.Report(func(f Finding) { found = append(found, f) })
		if want.warning == "" {
			found.wantGood(t)
		} else {
			found.want(t, Warn, "fleet-channels", want.warning)
		}
		eventually(t, "the hub has received them", func() bool { return feed.Stats().Unrouted == before+want.unrouted })
		if s := feed.Stats(); s.Malformed+s.ControlMalformed != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

// With presence, each missing permission is reported, with the command that grants it, and the set is not changed.
func TestInspectionReportsMissingPermissionsForPresence(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	target := parse(t, "redis://app:secret@"+server.Addr(), redis.ServerOptions{})
	inspectPresence := withPresence(nil)
	lines := append(documentedPermissions(t)[0], "~usercast:user-online", "~{usercast:user-online}:swept",
		"+eval", "+evalsha", "+time", "+zmscore", "+zadd", "+zrangebyscore", "+zrem", "+zcount", "+get", "+set")
	server.Do("zadd", "usercast:user-online", 1, "42")
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr()})
	defer client.Close()
	changes := client.Subscribe(t.Context(), "usercast:user-presence")
	defer changes.Close()
	if _, err := changes.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		without  []any
		name, do string
	}{
		{[]any{"-eval"}, "redis-right-eval", "app +eval"},
		{[]any{"-evalsha"}, "redis-right-evalsha", "app +evalsha"},
		{[]any{"-time"}, "redis-right-time", "app +time"},
		{[]any{"-zmscore"}, "redis-right-zmscore", "app +zmscore"},
		{[]any{"-zadd"}, "redis-right-zadd", "app +zadd"},
		{[]any{"-zrangebyscore"}, "redis-right-zrangebyscore", "app +zrangebyscore"},
		{[]any{"-zrem"}, "redis-right-zrem", "app +zrem"},
		{[]any{"-zcount"}, "redis-right-zcount", "app +zcount"},
		{[]any{"-get"}, "redis-right-get", "app +get"},
		{[]any{"-set"}, "redis-right-set", "app +set"},
		{[]any{"resetkeys", "~{usercast:user-online}:swept"}, "redis-right-commands", "app ~usercast:user-online"},
		{[]any{"resetkeys", "~usercast:user-online"}, "redis-right-commands", "app ~{usercast:user-online}:swept"},
		{[]any{"resetchannels", "&user-*", "&usercast:user-control", "&usercast:user-probe:*"}, "redis-right-publish", "app &usercast:user-presence"},
	} {
		setUser(server, slices.Concat(lines, c.without)...)
		found := run(t, target, inspectPresence)
		found.want(t, Warn, c.name, c.do)
		if n := len(found.bad()); n != 1 {
			t.Errorf("%v: %d findings: %v", c.without, n, found)
		}
	}
	setUser(server, lines...)
	run(t, target, inspectPresence).wantGood(t)
	server.Do("publish", "usercast:user-presence", "the first one")
	if m, err := changes.ReceiveMessage(t.Context()); err != nil || m.Payload != "the first one" {
		t.Errorf("subscribers of presence received %v, %v", m, err)
	}
	if keys := server.Do("keys", "*"); !reflect.DeepEqual(keys, []any{"usercast:user-online"}) {
		t.Errorf("Redis has the keys %v", keys)
	}
	if score := server.Do("zscore", "usercast:user-online", "42"); score != "1" {
		t.Errorf("the lease ends at %v", score)
	}
	server.Do("del", "usercast:user-online")
	server.Do("set", "usercast:user-online", "x")
	run(t, target, inspectPresence).want(t, Fail, "redis-presence", "delete the key")
}

// Presence needs each of its commands: a server without one is not suitable, unlike a server without those that a hub does not
// strictly need.
func TestInspectionReportsCommandsThatPresenceDoesNotHave(t *testing.T) {
	t.Parallel()
	for command, consequence := range map[string]string{
		"EVAL": "users of this hub are not shown as online", "EVALSHA": "users of this hub are not shown as online",
		"ZMSCORE": "users of this hub are not shown as online", "ZADD": "users of this hub are not shown as online",
		"ZCOUNT": "this hub does not remove users that have left, and does not count online users",
		"SET":    "this hub does not remove users that have left, and does not count online users",
	} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, "--rename-command", command, "")
			client := goredis.NewClient(&goredis.Options{Addr: server.Addr()})
			defer client.Close()
			changes := client.Subscribe(t.Context(), "usercast:user-presence")
			defer changes.Close()
			if _, err := changes.Receive(t.Context()); err != nil {
				t.Fatal(err)
			}
			found := run(t, parse(t, server.URL(), redis.ServerOptions{}), withPresence(nil))
			found.want(t, Warn, "redis-unavailable", command+" for presence is not available (ERR unknown command")
			found.want(t, Warn, "redis-unavailable", consequence)
			found.want(t, Warn, "redis-unavailable", "use a server that has it")
			if bad := found.bad(); len(bad) != 1 {
				t.Errorf("%d findings: %v", len(bad), found)
			}
			server.Do("publish", "usercast:user-presence", "the first one")
			if m, err := changes.ReceiveMessage(t.Context()); err != nil || m.Payload != "the first one" {
				t.Errorf("subscribers of presence received %v, %v", m, err)
			}
		})
	}
}

func TestInspectionReportsWhyRedisCannotBeUsed(t *testing.T) {
	t.Parallel()
	closed := redistest.Start(t, "--requirepass", "secret")
	url := func(user string) string { return "redis://" + user + closed.Addr() }
	for _, c := range []struct{ url, name, text string }{
		{url(""), "redis-password", "requires a password"},
		{url(":not-the-secret@"), "redis-password", "rejected the user or password"},
		{url("stranger:secret@"), "redis-password", "rejected the user or password"},
		{fmt.Sprintf("redis://127.0.0.1:%d", redistest.FreePort(t)), "redis-refused", "check that Redis is running"},
		{"redis://nobody.invalid", "redis-name", "does not resolve"},
		{"rediss://" + closed.Addr(), "redis-tls", "check that the port uses TLS"},
	} {
		found := run(t, parse(t, c.url, redis.ServerOptions{AnswerTimeout: time.Second}), nil)
		found.want(t, Fail, c.name, c.text)
		if len(found) != 1 || strings.Contains(found.String(), "secret") {
			t.Errorf("%s: %v", c.url, found)
		}
	}
}

func TestInspectionFindsWrongSettings(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	target := parse(t, server.URL(), redis.ServerOptions{})
	largest := func(n int) func(*Inspection) { return func(i *Inspection) { i.MaxPayload = n } }

	run(t, target, largest(32<<20)).want(t, Fail, "redis-buffer", `CONFIG SET client-output-buffer-limit "pubsub 256mb 64mb 60"`)
	run(t, target, largest(5<<20)).want(t, Warn, "redis-buffer", `"pubsub 40mb 10mb 60"`)
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 40mb 10mb 60") // the reported command
	run(t, target, largest(5<<20)).wantGood(t)
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 1mb 256kb 10")
	run(t, target, nil).want(t, Fail, "redis-buffer", "1mb 256kb 10")
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 0 0 0")
	run(t, target, nil).wantGood(t)

	run(t, target, ofStream).want(t, OK, "redis-buffer", "normal 0 0 0")
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 32mb 8mb 1")
	run(t, target, nil).want(t, Warn, "redis-buffer", `"pubsub 32mb 8mb 60"`)
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 32mb 8mb 60")

	// The limits of the app that publishes.
	server.Do("config", "set", "proto-max-bulk-len", "2mb")
	server.Do("config", "set", "client-query-buffer-limit", "2mb")
	found := run(t, target, largest(3<<20))
	found.want(t, Warn, "redis-proto-max-bulk-len", "2mb is too low for messages of --max-payload (3mb)")
	found.want(t, Warn, "redis-proto-max-bulk-len", "CONFIG SET proto-max-bulk-len 512mb")
	found.want(t, Warn, "redis-client-query-buffer-limit", "CONFIG SET client-query-buffer-limit 1024mb")
	run(t, target, largest(2<<20)).want(t, Warn, "redis-client-query-buffer-limit", "2mb is too low")
	run(t, target, nil).wantGood(t)

	server.Do("config", "set", "maxclients", "5")
	run(t, target, nil).want(t, Warn, "redis-maxclients", "CONFIG SET maxclients")
	server.Do("config", "set", "maxclients", "10000")

	server.Do("config", "set", "maxmemory", "100mb")
	server.Do("config", "set", "maxmemory-policy", "allkeys-lru")
	found = run(t, target, ofStream)
	found.want(t, Fail, "redis-eviction", "noeviction")
	found.want(t, Warn, "redis-aof", "appendonly yes")
	server.Do("set", "usercast:log", "x")
	run(t, target, ofStream).want(t, Fail, "redis-type", "is not a stream")

	// Per-user subscriptions, and an app on Laravel.
	client := goredis.NewClient(&goredis.Options{Addr: server.Addr(), Protocol: 2})
	defer client.Close()
	subscriber := client.Subscribe(t.Context())
	defer subscriber.Close()
	patterns := make([]string, manyPatterns)
	for i := range patterns {
		patterns[i] = fmt.Sprintf("user-%d:*", i)
	}
	if err := subscriber.PSubscribe(t.Context(), patterns...); err != nil {
		t.Fatal(err)
	}
	if err := subscriber.Subscribe(t.Context(), "laravel_database_user-42"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are subscribed", func() bool { return len(server.Do("pubsub", "channels").([]any)) > 0 })
	found = run(t, target, nil)
	found.want(t, Warn, "redis-patterns", "1000 patterns")
	found.want(t, Note, "redis-prefix", "--channel-prefix 'laravel_database_user-' --control-channel 'laravel_database_usercast:user-control'")

	// Listing very many channels would block Redis for other clients.
	channels := make([]string, manyChannels)
	for i := range channels {
		channels[i] = fmt.Sprintf("channel-%d", i)
	}
	if err := subscriber.Subscribe(t.Context(), channels...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are subscribed", func() bool { return len(server.Do("pubsub", "channels").([]any)) > manyChannels })
	found = run(t, target, nil)
	found.want(t, Warn, "redis-patterns", "1000 patterns")
	if slices.ContainsFunc(found, func(one Finding) bool { return one.Name == "redis-prefix" }) {
		t.Error("it has listed all channels")
	}
}

func TestInspectionRejectsAReplica(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := redistest.StartReplica(t, primary)
	found := run(t, parse(t, replica.URL(), redis.ServerOptions{}), nil)
	found.want(t, Fail, "redis-replica", "set --redis to "+primary.URL())
}

// The advice keeps TLS, names a cluster, and does not contain an address that the replica does not report.
func TestAdviceAboutAReplicaFitsTheURL(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	target := redistest.StartReplica(t, primary)
	for _, c := range []struct{ fields, want string }{
		{"redis_mode:standalone\r\nrole:slave\r\nmaster_host:db.example\r\nmaster_port:6380", "set --redis to rediss://db.example:6380"},
		{"redis_mode:standalone\r\nrole:slave\r\nmaster_host:::1\r\nmaster_port:6380", "set --redis to rediss://[::1]:6380"},
		{"role:slave", "set --redis to the address of the primary"},
		{"redis_mode:cluster\r\nrole:slave\r\nmaster_host:db.example\r\nmaster_port:6380", "set --redis to rediss+cluster://localhost:"},
	} {
		relay := redistest.StartDamagingRelay(t, target.Addr(), func(reply []byte) []byte {
			if !bytes.Contains(reply, []byte("role:")) && !bytes.Contains(reply, []byte("redis_mode:")) {
				return reply // not that to INFO
			}
			return fmt.Appendf(nil, "$%d\r\n%s\r\n", len(c.fields), c.fields)
		})
		files := redistest.NewTLSFiles(t)
		server := parse(t, "rediss://"+startTLS(t, files, relay.Addr()), redis.ServerOptions{TLSCAFile: files.CA})
		run(t, server, nil).want(t, Fail, "redis-replica", c.want)
	}
}

// startTLS forwards connections to target, which does not use TLS, and returns its address.
func startTLS(t *testing.T, files *redistest.TLSFiles, target string) (addr string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", target)
			if err != nil {
				_ = conn.Close()
				continue
			}
			all.Go(func() { _, _ = io.Copy(to, conn); _ = to.Close() })
			all.Go(func() { _, _ = io.Copy(conn, to); _ = conn.Close() })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return "localhost:" + port
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for text, below := range map[string]bool{"6.0.16": true, "6.2.0": false, "7.2.4": false, "5.0.14": true, "10.0": false, "": false, "garbage": false} {
		if got := parseVersion(text).below(6, 2); got != below {
			t.Errorf("%q below 6.2: %t", text, got)
		}
	}
	if line := (&inspector{server: new(topology.Server), Inspection: Inspection{Channels: redis.Channels{Users: "u?-"}, ControlChannel: "orders"}, version: version{6, 0}}).grants(); strings.Contains(line, "&") {
		t.Errorf("rules for channels, which Redis 6.0 does not support: %s", line)
	}
	if line := (&inspector{server: new(topology.Server), Inspection: Inspection{Channels: redis.Channels{Users: "u?-"}, ControlChannel: "orders"}}).grants(); !strings.Contains(line, ` &u\?-* &usercast:u\?-* &orders `) {
		t.Error(line)
	}
}

func TestInspectionOfAClusterAndOverSentinels(t *testing.T) {
	t.Parallel()
	node := redistest.StartCluster(t, 1)[0]
	target := parse(t, "redis+cluster://"+node.Addr(), redis.ServerOptions{})
	found := run(t, target, nil)
	found.wantGood(t)
	found.want(t, OK, "redis-role", "cluster node")
	found.want(t, OK, "redis-echo", "was received")
	run(t, target, ofStream).want(t, Note, "redis-stream", "is empty")
	node.Do("cluster", "delslots", 0)
	eventually(t, "the cluster fails", func() bool {
		return strings.Contains(node.Do("cluster", "info").(string), "cluster_state:fail")
	})
	run(t, target, nil).want(t, Warn, "redis-cluster", "check CLUSTER INFO")

	primary := redistest.Start(t)
	sentinel := redistest.StartSentinels(t, 1, "main", primary)[0]
	run(t, parse(t, "redis+sentinel://"+sentinel.Addr()+"/main", redis.ServerOptions{}), nil).wantGood(t)
}

// Errors of the wrong node of a cluster are not reported as missing commands.
func TestInspectionOfTheWrongNodeOfAClusterFailsOnce(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	slot := nodes[0].Do("cluster", "keyslot", "usercast:log").(int64)
	wrong := nodes[1-slot*2/16384]
	found := run(t, parse(t, wrong.URL(), redis.ServerOptions{}), ofStream)
	found.want(t, Fail, "redis-cluster", "the key is on another node of the cluster")
	if text := fmt.Sprint(found); strings.Count(text, "MOVED") != 1 {
		t.Error(text)
	}
}

func TestInspectionUsesTheDatabaseOfTheURL(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--databases", "2", "--rename-command", "XREAD", "")
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "&*", "-select")
	for _, url := range []string{server.URL() + "/2", "redis://app:secret@" + server.Addr() + "/1"} {
		if found := fmt.Sprint(run(t, parse(t, url, redis.ServerOptions{}), ofStream)); !strings.Contains(found, "database") {
			t.Errorf("%s: %s", url, found)
		}
	}
	run(t, parse(t, server.URL(), redis.ServerOptions{}), ofStream).want(t, Fail, "redis-command", "does not support the command XREAD")
}

func TestInspectionRecognizesASentinel(t *testing.T) {
	t.Parallel()
	sentinel := redistest.StartSentinels(t, 1, "main", redistest.Start(t))[0]
	for _, scheme := range []string{"redis", "redis+cluster"} {
		for _, change := range []func(*Inspection){nil, ofStream} {
			found := run(t, parse(t, scheme+"://"+sentinel.Addr(), redis.ServerOptions{}), change)
			found.want(t, Fail, "redis-sentinel", "use redis+sentinel://"+sentinel.Addr()+"/")
		}
	}
}
