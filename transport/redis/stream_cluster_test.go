package redis

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/internal/redistest"
)

// migration is the migration of a slot from one cluster node to another.
type migration struct {
	slot     any
	from, to *redistest.Server
	all      []*redistest.Server
}

// startMigration begins to move the slot of the key "log" to the other node.
func startMigration(nodes []*redistest.Server) *migration {
	m := &migration{slot: nodes[0].Do("cluster", "keyslot", "log"), from: nodes[0], to: nodes[1], all: nodes}
	if m.slot.(int64) >= 8192 {
		m.from, m.to = m.to, m.from
	}
	m.to.Do("cluster", "setslot", m.slot, "importing", m.from.Do("cluster", "myid"))
	m.from.Do("cluster", "setslot", m.slot, "migrating", m.to.Do("cluster", "myid"))
	return m
}

// moveKey moves the key. From then on, the old node replies with ASK.
func (m *migration) moveKey() {
	host, port := m.to.HostPort()
	m.from.Do("migrate", host, port, "", 0, 5000, "auth2", "redistest", "redistest", "keys", "log")
}

// end makes the new node the owner. From then on, the old one replies with MOVED.
func (m *migration) end() {
	for _, node := range []*redistest.Server{m.to, m.from} {
		node.Do("cluster", "setslot", m.slot, "node", m.to.Do("cluster", "myid"))
	}
}

// During and after the migration of its slot, the stream is read, queried and appended to.
func TestStreamIsFollowedWhileItsSlotMigrates(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	app := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{nodes[0].Addr(), nodes[1].Addr()}})
	defer app.Close()
	ctx := context.Background()
	server := parse(t, clusterURL("", nodes...), ServerOptions{})
	commands := NewCommands(server)
	defer commands.Close()
	var first hub.ID
	n := 0
	log := &logbook{}
	f := follow(t, server, func(c *StreamConfig) {
		c.Logger, c.WindowBytes, c.ProbeEvery = slog.New(log), 1, 20*time.Millisecond
		c.Block = 50 * time.Millisecond
	})
	probed := func() { // twice: the probe in progress may have begun earlier
		t.Helper()
		for range 2 {
			before := callsOf(t, nodes[0], "cluster|slots") + callsOf(t, nodes[1], "cluster|slots")
			f.await(t, "a probe", func() bool {
				return callsOf(t, nodes[0], "cluster|slots")+callsOf(t, nodes[1], "cluster|slots") > before+1
			})
		}
	}
	step := func(when string) {
		t.Helper()
		text := fmt.Sprintf("%d: %s", n, when)
		id, err := app.XAdd(ctx, &goredis.XAddArgs{Stream: "log", Values: []string{"ch", "user-1", "data", text}}).Result()
		if err != nil {
			t.Fatal(err)
		}
		last, err := parseID(id)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			first = last
		}
		n++
		f.want(t, "1: "+text)
		if r := f.askFor("1", first.Previous(), last); r.gap != 0 || len(r.entries) != n {
			t.Errorf("%s: %d entries were found, want %d: %v", when, len(r.entries), n, r.gap)
		}
		if id, err := commands.Append(ctx, "log", "user-1", "by the hub"); err != nil || id == "" {
			t.Errorf("%s: %v", when, err)
		}
		n++
		f.want(t, "1: by the hub")
		probed()
	}
	step("before")
	m := startMigration(nodes)
	step("the slot migrates, the key is still there")
	before := callsOf(t, m.from, "xlen")
	f.await(t, "an idle stream", func() bool { return callsOf(t, m.from, "xlen") > before })
	m.moveKey() // the next command is XLEN, unless a step follows earlier
	f.await(t, "the feed follows", func() bool { return callsOf(t, m.to, "asking") > 0 })
	step("the key has moved")
	m.end()
	step("the slot has moved")
	if s := f.Stats(); s.Generation != 1 || s.Reconnects != 0 {
		t.Errorf("%+v", s)
	}
	log.warnings(t, 0)
	log.mustNotContain(t, "redis command unavailable")
}

// A stream whose entries were all trimmed keeps its newest id and counts when it migrates.
func TestEmptyStreamThatMigratesIsNoReset(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	app := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{nodes[0].Addr(), nodes[1].Addr()}})
	defer app.Close()
	add := func(text string) {
		t.Helper()
		if err := app.XAdd(context.Background(), &goredis.XAddArgs{Stream: "log", Values: []string{"ch", "user-1", "data", text}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	f := follow(t, parse(t, clusterURL("", nodes...), ServerOptions{}), nil)
	add("one")
	f.want(t, "1: one")
	m := startMigration(nodes)
	m.from.Do("xtrim", "log", "maxlen", 0)
	m.moveKey()
	add("two")
	add("three")
	f.want(t, "1: two", "1: three")
}
