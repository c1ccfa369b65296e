package inspect

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"usercast/internal/finding"
	"usercast/internal/redistest"
	"usercast/transport/redis"
)

// observe publishes to channels while an Observation is in progress, and returns its findings.
func observe(t *testing.T, server *redistest.Server, url string, change func(*Inspection), channels ...string) (found inspected) {
	t.Helper()
	i := Inspection{Server: parse(t, url, redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}, BroadcastUser: "*", ControlChannel: redis.ControlChannel("user-")}
	if change != nil {
		change(&i)
	}
	return listen(t, server, i, func() int {
		for _, channel := range channels {
			server.Do("publish", channel, "secret-payload")
		}
		return len(channels)
	})
}

// listen runs publish while an Observation is in progress. It waits until it has received the number of messages that publish
// returns, and returns its findings.
func listen(t *testing.T, server *redistest.Server, i Inspection, publish func() int) (found inspected) {
	t.Helper()
	server.Await("earlier subscriptions have ended", func() bool { return server.Do("pubsub", "numpat") == int64(0) })
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h, ended := newObservation(i), make(chan struct{})
	go func() {
		defer close(ended)
		h.run(ctx, time.Hour)
	}()
	server.Await("it is subscribed", func() bool { return server.Do("pubsub", "numpat") != int64(0) })
	n := publish()
	eventually(t, "everything is received", func() bool { return h.received.Load() == int64(n) })
	cancel()
	<-ended
	h.Report(func(f Finding) { found = append(found, f) })
	for _, f := range found {
		if f.Level >= Warn && f.Do == "" {
			t.Errorf("%s: no advice", f.Name)
		}
		if strings.Contains(f.What+f.Do, "secret-payload") {
			t.Errorf("%s shows a payload", f.Name)
		}
	}
	return found
}

// The channels are those of the libraries in their default configurations.
func TestObservationNamesThePrefixThatFits(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, c := range []struct {
		channel string
		level   Level
		name    string
		what    string // part of the finding
		do      string // part of the advice
	}{
		{"user-42:activity", Note, "published-channel", `user "42", topic "activity" (1 message)`, ""},
		{"user-42", Note, "published-channel", `user "42", no topic`, ""},
		{"user-*:news", Note, "published-channel", `all users, topic "news"`, ""},
		{"user-:news", Warn, "published-malformed", "does not contain a user id", "publish to user-<user>:<topic>"},
		{"myapp_database_user-42:activity", Warn, "published-prefix", "does not begin with user-", "use --channel-prefix 'myapp_database_user-': then myapp_database_user-42:activity is user \"42\", topic \"activity\""},
		{"my-app-database-user-42:activity", Warn, "published-prefix", "", "add --control-channel 'my-app-database-usercast:user-control'"},
		{"laravel_database_private-App.Models.User.42", Warn, "published-prefix", "", "use --channel-prefix 'laravel_database_private-App.Models.User.'"},
		{"laravel_database_private-user-42", Warn, "published-prefix", "", "use --channel-prefix 'laravel_database_private-user-'"},
		{"laravel_database_private-user-42", Warn, "published-prefix", "", "add --control-channel 'usercast:user-control'"},
		{"laravel-database-private-user.42", Warn, "published-prefix", "", "use --channel-prefix 'laravel-database-private-user.'"},
		{"laravel_database_usercast:user-control", Warn, "published-control", "the hub subscribes to usercast:user-control", "use --control-channel 'laravel_database_usercast:user-control'"},
		{"myapp:user-42", Warn, "published-prefix", "", "use --channel-prefix 'myapp:user-'"},
		{"User-42:x", Warn, "published-prefix", "", "use --channel-prefix 'User-'"},
		{"users-42:x", Warn, "published-prefix", "", "use --channel-prefix 'users-'"},
		{"app_production:user_42:chat", Warn, "published-prefix", "", `use --channel-prefix 'app_production:user_': then app_production:user_42:chat is user "42", topic "chat"`},
		{"user.6b0c2b1e-8f0a-4c55-9a55-0c8f6f5d9f11.activity", Warn, "published-prefix", "", "use --channel-prefix 'user.' --topic-separator '.'"},
		{"user-42.activity", Warn, "published-separator", "does not contain", `use --topic-separator '.': then it is user "42", topic "activity"`},
		{"user-f:6b0c2b1e-8f0a-4c55-9a55-0c8f6f5d9f11:alice:x", Warn, "published-separator", "contains the topic separator", "use --topic-separator '/'"},
		{"user-accounts.google.com:1234", Warn, "published-separator", "", "publish to user-<user>/<topic>"},
		{"42:activity", Warn, "published-prefix", "", "publish to user-42:activity"},
		{"group-team-7:news", Warn, "published-prefix", "does not begin with user-", `use --group-prefix 'group-': then group-team-7:news is group "team-7", topic "news"`},
		{"team.7.news", Warn, "published-prefix", "", `use --group-prefix 'team.' --topic-separator '.': then team.7.news is group "7", topic "news"`},
		{"Tenants:acme", Warn, "published-prefix", "", `use --group-prefix 'Tenants:': then Tenants:acme is group "acme", no topic`},
		{"group-user-42:x", Warn, "published-prefix", "", "use --channel-prefix 'group-user-'"},
		{"grouping-x", Warn, "published-unknown", "", ""},
		{"team-", Warn, "published-unknown", "", ""},
		{"_action_cable_internal", Note, "published-library", "Action Cable", "publish to user-<user>:<topic>"},
		{"notifications:Z2lkOi8vYXBwL1VzZXIvMQ", Note, "published-library", "Action Cable", ""},
		{"socket.io#/#room#", Note, "published-library", "Socket.IO", "user-<user>"},
		{"asgi__group__user.42", Note, "published-library", "Django Channels", ""},
		{"https://app.example/users/42", Warn, "published-prefix", "", "use --channel-prefix 'https://app.example/users/'"},
		{"chat-room-12", Warn, "published-prefix", "", "if the text after the prefix is a user id: use"},
		{"news", Warn, "published-unknown", "without a user id", "publish to user-<user>:<topic>"},
		{"x';touch pwn;'user-42:a", Warn, "published-prefix", "", `use --channel-prefix 'x'\'';touch pwn;'\''user-': then`},
		{"it's_user-7:x", Warn, "published-prefix", "", `add --control-channel 'it'\''s_usercast:user-control'`},
		{"user-42'activity", Warn, "published-separator", "", `use --topic-separator ''\''':`},
		{"user-f:6b0c2b1e-8f0a-4c55-9a55-0c8f6f5d9f11:a\x1b", Warn, "published-separator", `the user id in "user-f:6b0c2b1e-8f0a-4c55-9a55-0c8f6f5d9f11:a\x1b" contains`, ""},
		{"user-42:a\n  ok    b", Note, "published-channel", `"user-42:a\n  ok    b": user "42"`, ""},
		{"\x1b[2Juser-42:x", Warn, "published-prefix", `"\x1b[2Juser-42:x" does not begin with user-`, `"\x1b[2Juser-" cannot be used as a prefix`},
		{"\xff-user-42:x", Warn, "published-prefix", `"\xff-user-42:x" does not`, `publish to user-<user>:<topic>: "\xff-user-" cannot be used as a prefix`},
		{"42:\a", Warn, "published-prefix", "", `publish to "user-42:\a": a hub needs`},
		{"a\nusercast:user-control", Warn, "published-control", `published to "a\nusercast:user-control"`, "remove the prefix from the app's Redis connection"},
		{"socket.io#\a", Note, "published-library", `"socket.io#\a"`, ""},
		{"\u202enews", Warn, "published-unknown", `for example to "\u202enews"`, ""},
	} {
		t.Run(strings.ReplaceAll(c.channel, "/", "_"), func(t *testing.T) {
			found := observe(t, server, server.URL(), nil, c.channel)
			for _, f := range found {
				if !finding.IsPrintable(f.What) || !finding.IsPrintable(strings.ReplaceAll(f.Do, "\n", "")) {
					t.Errorf("not printable: %q", f)
				}
			}
			for _, f := range found {
				if f.Level == c.level && f.Name == c.name && strings.Contains(f.What, c.what) && strings.Contains(f.Do, c.do) {
					return
				}
			}
			t.Errorf("no %v %s with %q and %q in %+v", c.level, c.name, c.what, c.do, found)
		})
	}
}

// What may belong to another program is not a warning if the hub receives the app's messages.
func TestObservationOfAWorkingAppHasNoWarnings(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	found := observe(t, server, server.URL(), nil, "user-42:activity", "cache-invalidate-7", "other_user-9", "news", "__keyspace@0__:x")
	for _, f := range found {
		if f.Level >= Warn {
			t.Errorf("%+v", f)
		}
	}
	if text := fmt.Sprint(found); strings.Contains(text, "usercast:last") || strings.Contains(text, "__keyspace") {
		t.Errorf("internal channels are shown: %s", text)
	}
}

func TestObservationOfNothingNamesACommandToTry(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	observe(t, server, server.URL(), nil).want(t, Warn, "published-nothing", "run usercast publish 42:test hello in another terminal")
}

func TestObservationNamesTheMissingPermission(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	setUser(server, "on", ">secret", "resetchannels", "&user-*", "+@all")
	i := Inspection{Server: parse(t, "redis://app:secret@"+server.Addr(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}}
	found := listen(t, server, i, func() int {
		server.Do("publish", "user-42:x", "secret-payload")
		server.Do("publish", "other", "secret-payload") // is not delivered
		return 1
	})
	found.want(t, Warn, "published-denied", "ACL SETUSER app &*")
	found.want(t, OK, "published", "")
	if text := fmt.Sprint(found); !strings.Contains(text, "only channels that begin with user- were observed") {
		t.Error(text)
	}
	setUser(server, "&group-*")
	i.Channels.Groups = "group-"
	found = listen(t, server, i, func() int {
		server.Do("publish", "group-7:x", "secret-payload")
		server.Do("publish", "user-7:x", "secret-payload")
		return 2
	})
	if text := fmt.Sprint(found); !strings.Contains(text, "only channels that begin with user- or group- were observed") {
		t.Error(text)
	}
	setUser(server, "on", ">secret", "resetchannels", "+@all")
	i.Channels.Groups, found = "", nil
	report := func(f Finding) { found = append(found, f) }
	i.Observe(t.Context(), time.Hour).Report(report) // returns immediately
	if len(found) != 1 || !strings.Contains(found[0].What, "no channel could be observed") {
		t.Errorf("%+v", found)
	}
	server.Do("acl", "setuser", "app", "&*")
	observe(t, server, "redis://app:secret@"+server.Addr(), nil, "other").want(t, Warn, "published-unknown", "other") // the command is sufficient
	closed := Inspection{Server: parse(t, fmt.Sprintf("redis://127.0.0.1:%d", redistest.FreePort(t)), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}}
	found = nil
	closed.Observe(t.Context(), time.Hour).Report(report)
	if len(found) != 1 || found[0].Level != Fail {
		t.Errorf("Redis is down: %+v", found)
	}
}

// With a group prefix, messages to groups are named as such, and no other prefix is recommended for them.
func TestObservationReadsGroupsAsTheHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	withGroups := func(i *Inspection) { i.Channels.Groups = "usercast:g-" } // its channels look like internal ones
	found := observe(t, server, server.URL(), withGroups, "user-42", "usercast:g-team-7:news", "usercast:g-8.x", "usercast:g-:x", "usercast:user-x")
	found.want(t, OK, "published", "")
	found.want(t, Warn, "published-malformed", "publish to usercast:g-<group>:<topic>")
	found.want(t, Warn, "published-separator", `use --topic-separator '.': then it is group "8", topic "x"`)
	text := fmt.Sprint(found)
	for _, want := range []string{
		`3 messages to 3 channels that begin with user- or usercast:g-`, `usercast:g-team-7:news: group "team-7", topic "news"`,
		`which does not contain the name of a group`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, text)
		}
	}
	if strings.Contains(text, "usercast:user-x") {
		t.Errorf("an internal channel is shown: %s", text)
	}
	found = observe(t, server, server.URL(), nil, "user-42", "team-7:x")
	found.want(t, Note, "published-prefix", "if they are meant for groups of users: use --group-prefix 'team-'")
}

// Nothing that the hub receives is for a group: then the prefix of groups is wrong, even if the hub receives messages to users.
func TestObservationNamesThePrefixOfGroupsThatFits(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	withGroups := func(i *Inspection) { i.Channels.Groups = "groups-" }
	for _, channels := range [][]string{{"group-a:t", "group-*"}, {"user-42", "group-a:t", "group-*"}} {
		found := observe(t, server, server.URL(), withGroups, channels...)
		found.want(t, Warn, "published-prefix", `use --group-prefix 'group-': then group-a:t is group "a", topic "t"`)
		found.want(t, Warn, "published-prefix", "or publish to groups-<group>:<topic>")
	}
	found := observe(t, server, server.URL(), withGroups, "groups-a", "team-b")
	found.want(t, Note, "published-prefix", "if they are meant for groups of users: use --group-prefix 'team-'")
	found.want(t, Note, "published-prefix", "or publish to groups-<group>:<topic>")
	found = observe(t, server, server.URL(), withGroups, "gruppe-a")
	found.want(t, Warn, "published-unknown", "if they are meant for groups of users, publish to groups-<group>:<topic>, or set --group-prefix")
	if text := fmt.Sprint(found); !strings.Contains(text, "without user- or groups- and without") {
		t.Error(text)
	}
	observe(t, server, server.URL(), withGroups, "team\x1b7").want(t, Warn, "published-prefix", `publish to groups-<group>:<topic>: "team\x1b" cannot be used`)
	observe(t, server, server.URL(), nil, "group-a:t", "group-*").want(t, Warn, "published-prefix", `then group-a:t is group "a", topic "t"`)
	observe(t, server, server.URL(), nil, "group-*").want(t, Warn, "published-prefix", `then group-* is group "*", of which no user can be a member`)
	found = observe(t, server, server.URL(), nil, "gruppe-a")
	found.want(t, Warn, "published-unknown", "if they are meant for groups of users, set --group-prefix to the text before the name of the group")
}

// All groups have no channel: a message to the group * reaches no stream.
func TestObservationOfAMessageToAllGroupsIsAWarning(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for broadcast, want := range map[string]string{"*": "publish to user-*", "all": "publish to user-all", "": "set --broadcast-user"} {
		found := observe(t, server, server.URL(), func(i *Inspection) { i.Channels.Groups, i.BroadcastUser = "group-", broadcast }, "group-*", "group-*:news", "group-a")
		found.want(t, Warn, "published-groups", "if they are meant for all users: "+want)
		text := fmt.Sprint(found)
		for _, want := range []string{"1 message to 1 channel that begin", "2 messages went to group-*, which does not"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %s", want, text)
			}
		}
	}
}

// The hub reads the user * as broadcasts only if it is the value of --broadcast-user.
func TestObservationReadsBroadcastsAsTheHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for broadcast, want := range map[string][]string{
		"*":   {`user-*:x: all users, topic "x"`, `user-all:y: user "all", topic "y"`},
		"all": {`user-*:x: user "*", whom no stream can have, because --broadcast-user is "all", topic "x"`, `user-all:y: all users, topic "y"`},
		"":    {`user-*:x: user "*", whom no stream can have, because --broadcast-user is empty, topic "x"`, `user-all:y: user "all", topic "y"`},
	} {
		text := fmt.Sprint(observe(t, server, server.URL(), func(i *Inspection) { i.BroadcastUser = broadcast }, "user-*:x", "user-all:y"))
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("--broadcast-user %q: no %s in %s", broadcast, w, text)
			}
		}
	}
}

// The hub reads the fields ch and data of an entry, and ignores entries without them.
func TestObservationNamesTheWrongFieldsOfEntries(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	i := Inspection{Server: parse(t, server.URL(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}, StreamKey: "usercast:log"}
	observeEntries := func(entries ...[]any) inspected {
		return listen(t, server, i, func() int {
			server.Await("the stream is read", func() bool {
				clients, _ := server.Do("client", "list").(string)
				return strings.Contains(clients, "cmd=xread")
			})
			for _, entry := range entries {
				server.Do(append([]any{"xadd", "usercast:log", "*"}, entry...)...)
			}
			return len(entries)
		})
	}
	found := observeEntries([]any{"channel", "user-42:x", "pay\nload", "secret-payload"}, []any{"ch", "user-42:x"}, []any{"ctl", "{}"})
	found.want(t, Warn, "published-fields", "XADD 'usercast:log' … ch <channel> data <payload>")
	if text := fmt.Sprint(found); len(found) != 1 || !strings.Contains(text, `ignores 2 entries`) || !strings.Contains(text, `the first one has channel, "pay\nload"`) {
		t.Errorf("%+v", found)
	}
	found = observeEntries([]any{"x", "y"}, []any{"ch", "user-42:x", "data", "secret-payload"})
	found.want(t, Warn, "published-fields", "")
	found.want(t, OK, "published", "")
	if text := fmt.Sprint(found); !strings.Contains(text, "1 entry to 1 value of the field ch in usercast:log") {
		t.Errorf("%+v", found)
	}
	observeEntries().want(t, Warn, "published-nothing", "run usercast publish --feed stream --stream-key 'usercast:log' 42:test hello in")
}

// What was received before Redis became unavailable is reported, too.
func TestObservationThatEndsEarlyReportsWhatWasReceived(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h, ended := newObservation(Inspection{Server: parse(t, server.URL(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}, ControlChannel: redis.ControlChannel("user-")}), make(chan struct{})
	go func() {
		defer close(ended)
		h.run(context.Background(), time.Hour)
	}()
	server.Await("it is subscribed", func() bool { return server.Do("pubsub", "numpat") != int64(0) })
	server.Do("publish", "app_user-42:x", "m")
	eventually(t, "everything is received", func() bool { return h.received.Load() == 1 })
	server.Kill()
	<-ended
	var found inspected
	h.Report(func(f Finding) { found = append(found, f) })
	if len(found) != 2 || found[0].Level != Fail {
		t.Errorf("%+v", found)
	}
	found.want(t, Warn, "published-prefix", "use --channel-prefix 'app_user-'")
}

func TestObservationOfAStream(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("xadd", "usercast:log", "*", "ch", "user-old", "data", "x") // before the observation
	i := Inspection{Server: parse(t, server.URL(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}, StreamKey: "usercast:log"}
	found := listen(t, server, i, func() int {
		server.Await("the stream is read", func() bool {
			clients, _ := server.Do("client", "list").(string)
			return strings.Contains(clients, "cmd=xread")
		})
		server.Do("publish", "user-42", "secret-payload")
		server.Do("xadd", "usercast:log", "*", "ch", "myapp:user-42:activity", "data", "secret-payload")
		return 2
	})
	found.want(t, Warn, "published-prefix", "use --channel-prefix 'myapp:user-'")
	found.want(t, Warn, "published-feed", "use --feed pubsub")
	if strings.Contains(fmt.Sprint(found), "user-old") {
		t.Errorf("%+v", found)
	}
}

// In a cluster, every node passes on what is published to another.
func TestObservationOfACluster(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	i := Inspection{Server: parse(t, "redis+cluster://"+nodes[0].Addr(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}}
	found := listen(t, nodes[0], i, func() int {
		for n, node := range nodes {
			node.Do("publish", fmt.Sprintf("user-%d", n), "x")
		}
		return len(nodes)
	})
	if !strings.Contains(fmt.Sprint(found), "3 messages to 3 channels that begin with user-") {
		t.Errorf("%+v", found)
	}
}

func TestObservationIncludesUnreadMessages(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h, ended := newObservation(Inspection{Server: parse(t, server.URL(), redis.ServerOptions{}), Channels: redis.Channels{Users: "user-", Separator: ':'}}), make(chan struct{})
	go func() {
		defer close(ended)
		h.run(ctx, time.Hour)
	}()
	server.Await("it is subscribed", func() bool { return server.Do("pubsub", "numpat") != int64(0) })
	const n = 30_000 // takes longer to read than the reply of EVAL
	server.Do("EVAL", `for i = 1, ARGV[1] do redis.call("PUBLISH", "user-42", "x") end return 1`, 0, n)
	cancel()
	<-ended
	if h.channels.total != n {
		t.Errorf("%d messages were counted, want %d", h.channels.total, n)
	}
}

// Memory is bounded however many channels there are and however long their names are.
func TestTallyIsBounded(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h := &Observation{in: &inspector{Inspection: Inspection{Channels: redis.Channels{Users: "user-", Separator: ':'}}}, lasted: time.Second}
	long := strings.Repeat("x", 1000)
	for n := range 10 * maxObservedChannels {
		h.channels.add(fmt.Sprintf("user-%d:%s", n, long))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("%d channels take %d bytes", 10*maxObservedChannels, grown)
	}
	var found inspected
	h.Report(func(f Finding) { found = append(found, f) })
	found.want(t, Note, "published-sample", "")
	if len(found) > 20 {
		t.Errorf("%d findings", len(found))
	}
}
