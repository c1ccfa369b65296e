package redis

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/proxytest"
	"usercast/internal/redistest"
)

// A lackingServer does not have some commands, as managed services and proxies do.
type lackingServer struct {
	commands []string
	named    []string // what the logs of the two feeds name
}

var lackingServers = map[string]lackingServer{
	"INFO":   {[]string{"INFO"}, []string{"INFO"}},
	"ROLE":   {[]string{"ROLE"}, nil},
	"CLIENT": {[]string{"CLIENT"}, []string{"CLIENT SETNAME"}},
	"CONFIG": {[]string{"CONFIG"}, nil},
	"PUBSUB": {[]string{"PUBSUB"}, nil},
	"HELLO":  {[]string{"HELLO"}, nil},
	"SELECT": {[]string{"SELECT"}, nil},
	"XLEN":   {[]string{"XLEN"}, []string{"XLEN log"}},
	"all": {
		[]string{"INFO", "ROLE", "CLIENT", "CONFIG", "PUBSUB", "HELLO", "SELECT", "XLEN", "COMMAND", "CLUSTER", "TIME", "DEBUG", "MONITOR"},
		[]string{"INFO", "CLIENT SETNAME", "XLEN log"},
	},
}

// renamed returns the arguments of redis-server that remove commands.
func renamed(commands []string) (args []string) {
	for _, c := range commands {
		args = append(args, "--rename-command", c, "")
	}
	return args
}

// Streams flow, probes arrive and a resume works without the commands, and each missing one is named once.
func TestFeedsOfAServerWithoutCommands(t *testing.T) {
	t.Parallel()
	for name, lacking := range lackingServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, append(renamed(lacking.commands), "--requirepass", "secret")...)
			checkFeeds(t, server, "redis://:secret@"+server.Addr(), "INFO redis command unavailable", lacking.named)
		})
		t.Run(name+" not allowed", func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			server.Do("acl", "setuser", "app", "on", ">secret", "~*", "&*", "+@all")
			for _, c := range lacking.commands {
				server.Do("acl", "setuser", "app", "-"+c)
			}
			checkFeeds(t, server, "redis://app:secret@"+server.Addr(), "WARN redis permission missing", lacking.named)
		})
	}
	t.Run("PING not allowed", func(t *testing.T) {
		t.Parallel()
		server := redistest.Start(t)
		server.Do("acl", "setuser", "app", "on", ">secret", "~*", "&*", "+@all", "-ping")
		checkFeeds(t, server, "redis://app:secret@"+server.Addr(), "WARN redis permission missing", []string{"PING"})
	})
}

// checkFeeds runs both feeds on a server whose missing commands are logged with the beginning of a line.
func checkFeeds(t *testing.T, server *redistest.Server, url, line string, named []string) {
	t.Helper()
	s := parse(t, url, ServerOptions{})
	h := start(t, s, func(c *PubSubConfig) { c.ProbeEvery, c.PingAfter = 20*time.Millisecond, 20*time.Millisecond })
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "x")
	eventually(t, "probes were received", func() bool { return probes(h) >= 3 })

	log := &logbook{}
	f := follow(t, s, func(c *StreamConfig) {
		c.ProbeEvery, c.Logger, c.Block = 20*time.Millisecond, slog.New(log), 20*time.Millisecond
	})
	id, err := parseID(xadd(server, "user-42", "x"))
	if err != nil {
		t.Fatal(err)
	}
	f.want(t, "42: x")
	answered := make(chan hub.Gap, 1)
	f.add(query{[]hub.Recipient{hub.User("42")}, hub.ID{}, id, func(_ []hub.Entry, _ hub.ID, gap hub.Gap) { answered <- gap }, alive})
	if gap := <-answered; gap != 0 {
		t.Errorf("a query was answered with %v", gap)
	}
	commands := NewCommands(s)
	defer commands.Close()
	if n, err := commands.Publish(context.Background(), "user-42:x", "y"); n != 1 || err != nil {
		t.Errorf("published to %d, %v", n, err)
	}
	if n, err := commands.PublishControl(context.Background(), ControlChannel("user-"), Control{Op: OpDisconnect, User: "42"}); n != 1 || err != nil {
		t.Errorf("published a control command to %d, %v", n, err)
	}
	h.awaitEvent(t, "disconnect 42")
	for _, command := range named {
		for _, l := range []*logbook{h.log, log} {
			switch {
			case l == h.log && strings.HasPrefix(command, "XLEN"):
				continue // only the stream feed uses it
			case l == log && command == "PING":
				continue // only the pub/sub feed uses it
			}
			l.await(t, line, "command="+command, "consequence=")
		}
	}
	for _, l := range []*logbook{h.log, log} {
		lines := l.all()
		slices.Sort(lines)
		if n := len(slices.Compact(lines)); n != len(l.all()) {
			t.Errorf("a line is repeated in\n%s", l)
		}
		if want := len(named) + 1; len(lines) > want { // and "subscribed"
			t.Errorf("%d lines, want at most %d:\n%s", len(lines), want, l)
		}
	}
	if g := h.Stats().Generation + f.Stats().Generation; g != 2 {
		t.Errorf("%d generations, want one of each feed", g)
	}
}

// A command that the hub needs is named, with what to do.
func TestFeedOfAServerWithoutPubSub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "PSUBSCRIBE", "")
	h := start(t, parse(t, server.URL(), ServerOptions{}), nil)
	h.log.await(t, "WARN redis subscription failed", "reason=command", "does not have the command to subscribe to user-*", "hint=use a server that has it")
	attempts := callsOf(t, server, "subscribe")
	eventually(t, "two more attempts were made", func() bool { return callsOf(t, server, "subscribe") >= attempts+4 })
	h.log.warnings(t, 1)
}

// Every node of a cluster lacks commands. CLUSTER itself is needed only to find other nodes, and the owner of a key.
func TestClusterWithoutCommands(t *testing.T) {
	t.Parallel()
	for name, change := range map[string][]any{
		"INFO, ROLE, CLIENT, CONFIG, PUBSUB": {"-info", "-role", "-client", "-config", "-pubsub"},
		"CLUSTER":                            {"-info", "-cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := redistest.StartCluster(t, 2)
			for _, n := range nodes {
				n.Do(append([]any{"acl", "setuser", "app", "on", ">secret", "~*", "&*", "+@all"}, change...)...)
			}
			s := parse(t, fmt.Sprintf("redis+cluster://app:secret@%s,%s", nodes[0].Addr(), nodes[1].Addr()), ServerOptions{})
			h := start(t, s, func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
			h.awaitGeneration(t, 1)
			for i, n := range nodes {
				n.Do("publish", "user-42:x", fmt.Sprint(i))
				h.awaitEvent(t, fmt.Sprintf("42/x/%d", i))
			}
			eventually(t, "probes were received", func() bool { return probes(h) >= 3 })
			if h.Stats().Generation != 1 {
				t.Errorf("stats %+v", h.Stats())
			}
		})
	}
}

// Servers that are not Redis reply to the PING of a subscriber as to any other PING, and to INFO with other fields.
func TestFeedOfAServerThatIsNotRedis(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(reply []byte) []byte{
		"status for a PING": func(reply []byte) []byte {
			if bytes.HasPrefix(reply, []byte("*2\r\n$4\r\npong\r\n$0\r\n")) {
				return []byte("+PONG\r\n")
			}
			return reply
		},
		"string for a PING": func(reply []byte) []byte {
			if payload, ok := bytes.CutPrefix(reply, []byte("*2\r\n$4\r\npong\r\n")); ok {
				return payload
			}
			return reply
		},
		"no run_id": func(reply []byte) []byte {
			if bytes.Contains(reply, []byte("redis_version:")) {
				text := "# Server\r\nredis_version:7.4.0\r\ndragonfly_version:df-v1.40.1\r\nredis_mode:standalone\r\n"
				return fmt.Appendf(nil, "$%d\r\n%s\r\n", len(text), text)
			}
			return reply
		},
		"no section of INFO": func(reply []byte) []byte {
			if bytes.Contains(reply, []byte("# ")) {
				return []byte("$0\r\n\r\n")
			}
			return reply
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			relay := redistest.StartDamagingRelay(t, server.Addr(), change)
			s := parse(t, relay.URL(), ServerOptions{})
			h := start(t, s, func(c *PubSubConfig) { c.ProbeEvery, c.PingAfter = 20*time.Millisecond, 20*time.Millisecond })
			h.awaitGeneration(t, 1)
			for n := range 3 {
				large := strings.Repeat("x", 100_000) + fmt.Sprint(n) // has a PING with a payload after it
				h.awaitDelivery(t, server, large)
			}
			pings := callsOf(t, server, "ping")
			eventually(t, "more pings were sent", func() bool { return callsOf(t, server, "ping") >= pings+3 })
			eventually(t, "probes were received", func() bool { return probes(h) >= 3 })
			f := follow(t, s, nil)
			xadd(server, "user-42", "x")
			f.want(t, "42: x")
			if g := h.Stats().Generation + f.Stats().Generation; g != 2 {
				t.Errorf("%d generations, want one of each feed\n%s", g, h.log)
			}
			eventually(t, "its own marker was received, or none was expected", func() bool { return h.Stats().Marked })
			if strings.HasPrefix(name, "no ") {
				h.log.once(t, "WARN redis does not report its run_id, ids are valid on this hub only")
				h.log.warnings(t, 1)
				return
			}
			h.log.warnings(t, 0)
		})
	}
}

// A proxy does not close idle connections if its timeout is longer than the time between two commands, 6 s by default and
// 3 s here.
func TestFeedsThroughATCPProxy(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	addr := proxytest.HAProxy(t, `
defaults
  mode tcp
  timeout connect 5s
  timeout client 6s
  timeout server 6s
listen redis
  bind {listen}
  server a `+server.Addr()+`
`)
	s := parse(t, "redis://"+addr, ServerOptions{AnswerTimeout: 2 * time.Second})
	h := start(t, s, func(c *PubSubConfig) { c.PingAfter = time.Second })
	h.awaitGeneration(t, 1)
	f := follow(t, s, nil)
	pings, reads := callsOf(t, server, "ping"), callsOf(t, server, "xread")
	eventually(t, "the feeds were idle for longer than the timeouts", func() bool {
		return callsOf(t, server, "ping") >= pings+4 && callsOf(t, server, "xread") >= reads+3
	})
	h.awaitDelivery(t, server, "x")
	xadd(server, "user-42", "x")
	f.want(t, "42: x")
	if g := h.Stats().Generation + f.Stats().Generation; g != 2 {
		t.Errorf("%d generations, want one of each feed", g)
	}
	h.log.warnings(t, 0)
}
