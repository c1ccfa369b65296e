package redis

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/internal/redistest"
)

func TestDatabaseOfTheURLIsRead(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]int{
		"redis://h":                       0,
		"redis://h/3":                     3,
		"redis://h/3/":                    3,
		"redis://h?db=3":                  3,
		"redis://h/0?db=3":                3,
		"redis://h/3?db=3":                3,
		"rediss://h/3?skip_verify=true":   3,
		"unix:///run/redis.sock?db=3":     3,
		"unix:///run/redis.sock":          0,
		"redis+sentinel://a,b/main/3":     3,
		"redis+sentinel://a,b/main?db=3":  3,
		"redis+sentinel://a,b/main":       0,
		"redis+cluster://a,b/0":           0,
		"redis+cluster://a,b":             0,
		"redis+sentinel://a,b/main/0?db=": 0,
	} {
		s, err := ParseServer(url, ServerOptions{})
		if err != nil || s.topology().Database() != want {
			t.Errorf("%s: %+v, %v", url, s, err)
		}
	}
	for _, url := range []string{"redis://h/3?db=4", "redis+sentinel://a,b/main/3?db=4", "redis+cluster://a,b/3", "redis+cluster://a,b?db=3", "redis://h/x"} {
		if _, err := ParseServer(url, ServerOptions{}); err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// The stream is a key in one database, where it is read, queried, inspected and appended to.
func TestStreamIsInTheDatabaseOfTheURL(t *testing.T) {
	t.Parallel()
	plain := redistest.Start(t)
	socket := filepath.Join(t.TempDir(), "s")
	local := redistest.Start(t, "--unixsocket", socket)
	type test struct {
		url    string
		server *redistest.Server
	}
	tests := map[string]test{
		"path":      {plain.URL() + "/3", plain},
		"parameter": {"unix://" + socket + "?db=3", local},
	}
	watched := redistest.Start(t)
	tests["sentinel"] = test{sentinelURL(redistest.StartSentinels(t, 1, "main", watched)...) + "/3", watched}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			app := goredis.NewClient(&goredis.Options{Addr: test.server.Addr(), DB: 3})
			defer app.Close()
			ctx := context.Background()
			server := parse(t, test.url, ServerOptions{})
			first, err := app.XAdd(ctx, &goredis.XAddArgs{Stream: "log", Values: []string{"ch", "user-42", "data", "before"}}).Result()
			if err != nil {
				t.Fatal(err)
			}
			f := follow(t, server, nil)
			f.want(t, "old before")

			commands := NewCommands(server)
			defer commands.Close()
			if receivers, err := commands.Publish(ctx, "user-42", "on a connection without the database"); receivers != 0 || err != nil {
				t.Errorf("%d, %v", receivers, err)
			}
			if _, err := commands.Append(ctx, "log", "user-42", "by the hub"); err != nil {
				t.Error(err)
			}
			p, err := NewPipeline(ctx, server, "log", "")
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if err := p.Append("log", "user-42", []byte("by a pipeline")); err != nil {
				t.Error(err)
			}
			if err := p.Flush(); err != nil {
				t.Error(err)
			}
			if _, err := p.Receive(); err != nil {
				t.Error(err)
			}
			f.want(t, "42: by the hub", "42: by a pipeline")
			if n := app.XLen(ctx, "log").Val(); n != 3 {
				t.Errorf("%d entries in database 3", n)
			}
			if n := test.server.Do("EXISTS", "log").(int64); n != 0 {
				t.Error("something was written to database 0")
			}
			id, err := parseID(first)
			if err != nil {
				t.Fatal(err)
			}
			if r := f.askFor("42", id, f.cursorOf(t, app)); r.gap != 0 || len(r.entries) != 2 {
				t.Errorf("%d entries, %v", len(r.entries), r.gap)
			}
		})
	}
}

// cursorOf returns the newest id of the stream.
func (f *follower) cursorOf(t *testing.T, app *goredis.Client) hub.ID {
	t.Helper()
	list, err := app.XRevRangeN(context.Background(), "log", "+", "-", 1).Result()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	id, err := parseID(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Channels do not belong to a database: a pub/sub feed does not use SELECT, and does not need the permission.
func TestDatabaseHasNoEffectOnChannels(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--databases", "2")
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "&*", "-select")
	h := start(t, parse(t, "redis://app:secret@"+server.Addr()+"/3", ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	h.deliverFrom(t, "x", server)
	h.log.warnings(t, 0)
}

func TestDatabaseThatCannotBeUsedIsExplained(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--databases", "2")
	server.Do("ACL", "SETUSER", "app", "on", ">secret", "+@all", "~*", "&*", "-select")
	for url, want := range map[string]string{
		server.URL() + "/2":                          `error=Redis does not have database 2`,
		"redis://app:secret@" + server.Addr() + "/1": "reason=right hint=ACL SETUSER app +select error=user app is not allowed to select database 1",
	} {
		log := &logbook{}
		s := parse(t, url, ServerOptions{})
		followLater(t, s, logTo(log))
		log.await(t, "WARN redis subscription failed", want)
		commands := NewCommands(s)
		_, err := commands.Append(context.Background(), "log", "user-42", "x")
		commands.Close()
		if err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("append: %v", err)
		}
	}
}

// If the lookup of the key's owner is not allowed, the error describes that command, not the one that was requested.
func TestErrorOfTheLookupIsExplained(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	for _, node := range nodes {
		node.Do("acl", "setuser", "app", "on", ">secret", "+@all", "-cluster|slots", "&*", "~*")
	}
	server := parse(t, clusterURL("app:secret@", nodes...), ServerOptions{})
	log := &logbook{}
	followLater(t, server, logTo(log))
	log.await(t, "WARN redis subscription failed", "+cluster|slots")
	if n := log.count("+xread"); n > 0 {
		t.Errorf("the log contains another permission:\n%s", log)
	}
	commands := NewCommands(server)
	defer commands.Close()
	_, err := commands.Append(context.Background(), "log", "user-42", "x")
	if err == nil || !strings.Contains(err.Error(), "+cluster|slots") || strings.Contains(err.Error(), "+xadd") {
		t.Errorf("append: %v", err)
	}
}

func TestServerWithoutACommandIsExplained(t *testing.T) {
	t.Parallel()
	for command, want := range map[string]string{
		"XINFO": "error=this server does not support the command XINFO STREAM",
		"XREAD": "error=this server does not support the command XREAD",
	} {
		server := redistest.Start(t, "--rename-command", command, "")
		log := &logbook{}
		s := parse(t, server.URL(), ServerOptions{})
		followLater(t, s, logTo(log))
		log.await(t, "WARN redis subscription failed", want, "Redis 6.2")
	}
}
