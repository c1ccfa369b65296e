package redis

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/advice"
	"usercast/internal/redistest"
)

// inspected is what an Inspection said.
type inspected []advice.Finding

func inspect(t *testing.T, server *Server, change func(*Inspection)) (found inspected) {
	t.Helper()
	i := Inspection{Server: server, ChannelPrefix: "user-", ControlChannel: ControlChannel("user-"), MaxPayload: 1 << 20}
	if change != nil {
		change(&i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	i.Run(ctx, func(f advice.Finding) { found = append(found, f) })
	for _, f := range found {
		if f.Level >= advice.Warn && f.Do == "" {
			t.Errorf("%s: nothing to do", f.Name)
		}
	}
	return found
}

func ofStream(i *Inspection) { i.StreamKey = "usercast:log" }

func (f inspected) String() string {
	var b strings.Builder
	for _, one := range f {
		fmt.Fprintf(&b, "\n  %-4s %s: %s → %s", one.Level, one.Name, one.What, one.Do)
	}
	return b.String()
}

// find returns the finding of that name, of which there must be one.
func (f inspected) find(t *testing.T, name string) advice.Finding {
	t.Helper()
	i := slices.IndexFunc(f, func(one advice.Finding) bool { return one.Name == name })
	if i < 0 {
		t.Fatalf("no %s in %v", name, f)
	}
	return f[i]
}

func (f inspected) want(t *testing.T, level advice.Level, name, text string) {
	t.Helper()
	if one := f.find(t, name); one.Level != level || !strings.Contains(one.What+" → "+one.Do, text) {
		t.Errorf("want %s %s with %q, in %v", level, name, text, f)
	}
}

// bad are the names of what is worse than a note.
func (f inspected) bad() (names []string) {
	for _, one := range f {
		if one.Level > advice.Note {
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
	f.want(t, advice.OK, "redis-acl", "may do all")
}

func TestInspectionOfAGoodRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	redis := parse(t, server.URL(), ServerOptions{})
	found := inspect(t, redis, nil)
	found.wantGood(t)
	found.want(t, advice.OK, "redis-version", "Redis ")
	found.want(t, advice.OK, "redis-role", "primary")
	found.want(t, advice.OK, "redis-buffer", "pubsub 32mb 8mb 60")
	found.want(t, advice.OK, "redis-echo", "came back")
	found.want(t, advice.Note, "redis-hubs", "no hub")

	// Beside a hub, which hears one message to nobody, and no order.
	h := start(t, redis, func(c *Config) {
		publish := c.Publish
		c.Publish = func(user, topic, payload string) int {
			if strings.HasPrefix(user, nobody) {
				return 0
			}
			return publish(user, topic, payload)
		}
		c.Control = func(Control) { t.Error("an order") }
	})
	h.awaitGeneration(t, 1)
	found = inspect(t, redis, nil)
	found.wantGood(t)
	found.want(t, advice.OK, "redis-hubs", "one other")
	eventually(t, "the hub has heard it", func() bool { return h.Stats().Received > 0 })
	if s := h.conserved(t); s.Received != 1 || s.Unrouted != 1 {
		t.Errorf("stats %+v", s)
	}

	found = inspect(t, redis, ofStream)
	found.wantGood(t)
	found.want(t, advice.Note, "redis-stream", "no entries")
	if n := server.Do("dbsize"); n != int64(0) {
		t.Errorf("%v keys were made", n)
	}
	server.Do("xadd", "usercast:log", "1-1", "ch", "user-42", "data", "old")
	found = inspect(t, redis, ofStream)
	found.wantGood(t)
	found.want(t, advice.OK, "redis-stream", "1 entries")
	found.want(t, advice.Note, "redis-trim", "MINID")
	if n := server.Do("xlen", "usercast:log"); n != int64(1) {
		t.Errorf("%v entries", n)
	}
}

// documentedRights are the ACL lines of docs/security.md, without the user's name and password.
func documentedRights(t *testing.T) (lines [][]any) {
	t.Helper()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rights, ok := strings.CutPrefix(line, "    ACL SETUSER usercast on >PASSWORD "); ok {
			var args []any
			for _, right := range strings.Fields(rights) {
				args = append(args, right)
			}
			lines = append(lines, args)
		}
	}
	if len(lines) != 2 {
		t.Fatalf("docs/security.md has %d lines of rights", len(lines))
	}
	return lines
}

// setUser makes app have the rights, after all that it had before.
func setUser(server *redistest.Server, rights ...any) {
	server.Do(slices.Concat([]any{"acl", "setuser", "app", "on", ">secret"}, rights)...)
}

func TestDocumentedRightsAreEnough(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	redis := parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{})
	lines := documentedRights(t)

	setUser(server, lines[0]...)
	inspect(t, redis, nil).wantGood(t)
	h := start(t, redis, func(c *Config) {
		c.ProbeEvery = 20 * time.Millisecond
		c.PingAfter = 20 * time.Millisecond
		c.Control = func(Control) {}
	})
	h.awaitGeneration(t, 1)
	eventually(t, "a probe came back", func() bool { return probes(h) > 0 })
	h.log.warnings(t, 0)

	setUser(server, lines[1]...)
	inspect(t, redis, ofStream).wantGood(t)
	commands := NewCommands(redis)
	defer commands.Close()
	if _, err := commands.Append(context.Background(), "usercast:log", "user-42", "x"); err != nil {
		t.Error(err)
	}
	follow(t, redis, func(c *LogConfig) { c.Key = "usercast:log" }).want(t, "old x")

	// The inspection prints the same.
	for i, change := range []func(*Inspection){nil, ofStream} {
		setUser(server, "reset", "on", ">secret")
		line := inspect(t, redis, change).find(t, "redis-acl").Do
		want := fmt.Sprintf("ACL SETUSER app %s", strings.Trim(fmt.Sprint(lines[i]), "[]"))
		if line != want {
			t.Errorf("it prints\n%s\nand the docs have\n%s", line, want)
		}
	}
}

// Each right that is missing is named, with what would give it.
func TestInspectionNamesMissingRights(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--appendonly", "yes")
	redis := parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{})
	lines := documentedRights(t)
	for _, c := range []struct {
		stream  bool
		without []any
		level   advice.Level
		name    string
		do      string
	}{
		{false, []any{"-psubscribe"}, advice.Fail, "redis-right-psubscribe", "app +psubscribe"},
		{false, []any{"resetchannels", "&usercast:user-*"}, advice.Fail, "redis-right-psubscribe", "app &user-*"},
		{false, []any{"resetchannels", "&user-*", "&usercast:user-probe:*"}, advice.Fail, "redis-right-subscribe", "app &usercast:user-control"},
		{false, []any{"resetchannels", "&user-*", "&usercast:user-control"}, advice.Warn, "redis-right-subscribe", "app &usercast:user-probe:*"},
		{false, []any{"-subscribe"}, advice.Fail, "redis-right-subscribe", "app +subscribe"},
		{false, []any{"-publish"}, advice.Warn, "redis-right-publish", "app +publish"},
		{false, []any{"-ping"}, advice.Warn, "redis-right-ping", "app +ping"},
		{false, []any{"-info"}, advice.Warn, "redis-right-info", "app +info"},
		{false, []any{"-client|setname"}, advice.Warn, "redis-right-client", "app +client|setname"},
		{true, []any{"-xread"}, advice.Fail, "redis-right-xread", "app +xread"},
		{true, []any{"-xrange"}, advice.Fail, "redis-right-xrange", "app +xrange"},
		{true, []any{"-xrevrange"}, advice.Fail, "redis-right-xrevrange", "app +xrevrange"},
		{true, []any{"-xinfo|stream"}, advice.Fail, "redis-right-xinfo", "app +xinfo|stream"},
		{true, []any{"-xlen"}, advice.Warn, "redis-right-xlen", "app +xlen"},
		{true, []any{"-xadd"}, advice.Warn, "redis-right-xadd", "app +xadd"},
		{true, []any{"resetkeys"}, advice.Fail, "redis-right-xinfo", "app ~usercast:log"},
	} {
		change, line := (func(*Inspection))(nil), lines[0]
		if c.stream {
			change, line = ofStream, lines[1]
		}
		t.Run(fmt.Sprint(c.without...), func(t *testing.T) {
			setUser(server, slices.Concat(line, c.without)...)
			found := inspect(t, redis, change)
			found.want(t, c.level, c.name, c.do)
			// What it says is enough, one by one and all at once.
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
				inspect(t, redis, change).wantGood(t)
			}
		})
	}
}

func TestInspectionSaysWhyRedisCannotBeUsed(t *testing.T) {
	t.Parallel()
	closed := redistest.Start(t, "--requirepass", "secret")
	url := func(user string) string { return "redis://" + user + closed.Addr() }
	for _, c := range []struct{ url, name, text string }{
		{url(""), "redis-password", "asks for a password"},
		{url(":not-the-secret@"), "redis-password", "refuses user or password"},
		{url("stranger:secret@"), "redis-password", "refuses user or password"},
		{fmt.Sprintf("redis://127.0.0.1:%d", redistest.FreePort(t)), "redis-refused", "is redis running"},
		{"redis://nobody.invalid", "redis-name", "does not resolve"},
		{"rediss://" + closed.Addr(), "redis-tls", "does the port speak TLS"},
	} {
		found := inspect(t, parse(t, c.url, ServerOptions{AnswerTimeout: time.Second}), nil)
		found.want(t, advice.Fail, c.name, c.text)
		if len(found) != 1 || strings.Contains(found.String(), "secret") {
			t.Errorf("%s: %v", c.url, found)
		}
	}
}

func TestInspectionFindsWrongSettings(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	redis := parse(t, server.URL(), ServerOptions{})
	largest := func(n int) func(*Inspection) { return func(i *Inspection) { i.MaxPayload = n } }

	inspect(t, redis, largest(32<<20)).want(t, advice.Fail, "redis-buffer", `CONFIG SET client-output-buffer-limit "pubsub 256mb 64mb 60"`)
	inspect(t, redis, largest(5<<20)).want(t, advice.Warn, "redis-buffer", `"pubsub 40mb 10mb 60"`)
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 40mb 10mb 60") // as it says
	inspect(t, redis, largest(5<<20)).wantGood(t)
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 1mb 256kb 10")
	inspect(t, redis, nil).want(t, advice.Fail, "redis-buffer", "1mb 256kb 10")
	server.Do("config", "set", "client-output-buffer-limit", "pubsub 0 0 0")
	inspect(t, redis, nil).wantGood(t)

	server.Do("config", "set", "maxclients", "5")
	inspect(t, redis, nil).want(t, advice.Warn, "redis-maxclients", "CONFIG SET maxclients")
	server.Do("config", "set", "maxclients", "10000")

	server.Do("config", "set", "maxmemory", "100mb")
	server.Do("config", "set", "maxmemory-policy", "allkeys-lru")
	found := inspect(t, redis, ofStream)
	found.want(t, advice.Fail, "redis-eviction", "noeviction")
	found.want(t, advice.Warn, "redis-aof", "appendonly yes")
	server.Do("set", "usercast:log", "x")
	inspect(t, redis, ofStream).want(t, advice.Fail, "redis-type", "is no stream")

	// Textbook pages, and an app on Laravel.
	subscriber := redis.newLink(t.Context(), func(context.Context, *goredis.Conn) error { return nil })
	defer subscriber.close()
	patterns := make([]string, manyPatterns)
	for i := range patterns {
		patterns[i] = fmt.Sprintf("user-%d:*", i)
	}
	if err := subscriber.pubsub.PSubscribe(t.Context(), patterns...); err != nil {
		t.Fatal(err)
	}
	if err := subscriber.pubsub.Subscribe(t.Context(), "laravel_database_user-42"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are subscribed", func() bool { return len(server.Do("pubsub", "channels").([]any)) > 0 })
	found = inspect(t, redis, nil)
	found.want(t, advice.Warn, "redis-patterns", "1000 patterns")
	found.want(t, advice.Note, "redis-prefix", "--channel-prefix 'laravel_database_user-' --control-channel 'laravel_database_usercast:user-control'")

	// Looking through very many would hold up everybody else.
	channels := make([]string, manyChannels)
	for i := range channels {
		channels[i] = fmt.Sprintf("channel-%d", i)
	}
	if err := subscriber.pubsub.Subscribe(t.Context(), channels...); err != nil {
		t.Fatal(err)
	}
	eventually(t, "they are subscribed", func() bool { return len(server.Do("pubsub", "channels").([]any)) > manyChannels })
	found = inspect(t, redis, nil)
	found.want(t, advice.Warn, "redis-patterns", "1000 patterns")
	if slices.ContainsFunc(found, func(one advice.Finding) bool { return one.Name == "redis-prefix" }) {
		t.Error("it has looked through all channels")
	}
}

func TestInspectionRefusesAReplica(t *testing.T) {
	t.Parallel()
	primary := redistest.Start(t)
	replica := redistest.StartReplica(t, primary)
	found := inspect(t, parse(t, replica.URL(), ServerOptions{}), nil)
	found.want(t, advice.Fail, "redis-replica", "--redis "+primary.URL())
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for text, below := range map[string]bool{"6.0.16": true, "6.2.0": false, "7.2.4": false, "5.0.14": true, "10.0": false, "": false, "garbage": false} {
		if got := parseVersion(text).below(6, 2); got != below {
			t.Errorf("%q below 6.2: %t", text, got)
		}
	}
	if line := (&inspector{Inspection: Inspection{Server: &Server{}, ChannelPrefix: "u?-", ControlChannel: "orders"}, version: version{6, 0}}).grants(); strings.Contains(line, "&") {
		t.Errorf("rules for channels, which Redis 6.0 has not: %s", line)
	}
	if line := (&inspector{Inspection: Inspection{Server: &Server{}, ChannelPrefix: "u?-", ControlChannel: "orders"}}).grants(); !strings.Contains(line, ` &u\?-* &usercast:u\?-* &orders `) {
		t.Error(line)
	}
}
