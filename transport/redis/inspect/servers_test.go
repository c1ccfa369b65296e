package inspect

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"usercast/internal/redistest"
	"usercast/transport/redis"
)

// A server without commands that a hub does not strictly need is suitable. Each one is named, with the consequence.
func TestInspectionOfAServerWithoutCommands(t *testing.T) {
	t.Parallel()
	for name, commands := range map[string][]string{
		"INFO": {"INFO"}, "ROLE": {"ROLE"}, "CLIENT": {"CLIENT"}, "CONFIG": {"CONFIG"}, "PUBSUB": {"PUBSUB"}, "HELLO": {"HELLO"}, "XLEN": {"XLEN"},
		"all": {"INFO", "ROLE", "CLIENT", "CONFIG", "PUBSUB", "HELLO", "XLEN", "SELECT", "COMMAND", "CLUSTER"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			args := []string{"--appendonly", "yes"}
			for _, c := range commands {
				args = append(args, "--rename-command", c, "")
			}
			server := parse(t, redistest.Start(t, args...).URL(), redis.ServerOptions{})
			for _, change := range []func(*Inspection){nil, ofStream} {
				found := run(t, server, change)
				found.wantGood(t)
				text := found.String()
				for _, c := range commands {
					var want string
					switch {
					case c == "INFO" && change == nil:
						want = "INFO is not available (ERR unknown command 'info'): ids are valid on this hub only, and a failover behind the same address is detected only by a lost probe"
					case c == "INFO":
						want = "INFO is not available (ERR unknown command 'info'): a failover behind the same address is not detected"
					case c == "CLIENT":
						want = "CLIENT SETNAME is not available (ERR unknown command 'client'): connections are unnamed"
					case c == "XLEN" && change != nil:
						want = "XLEN usercast:log is not available"
					case c == "CONFIG":
						want = "CONFIG GET is not available"
					}
					if want != "" && strings.Count(text, want) != 1 {
						t.Errorf("%q is %d times in %s", want, strings.Count(text, want), text)
					}
				}
			}
		})
	}
}

func TestInspectionFailsWithoutPubSub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, "--rename-command", "PSUBSCRIBE", "", "--rename-command", "SELECT", "")
	found := run(t, parse(t, server.URL(), redis.ServerOptions{}), nil)
	found.want(t, Fail, "redis-unavailable", "PSUBSCRIBE to user-* is not available (ERR unknown command 'psubscribe'): the hub receives no messages")
	found = run(t, parse(t, server.URL()+"/3", redis.ServerOptions{}), ofStream)
	found.want(t, Fail, "redis-command", "this server does not have the command to select database 3")
}

func TestInspectionNamesTheProgram(t *testing.T) {
	t.Parallel()
	target := redistest.Start(t, "--appendonly", "yes")
	for _, c := range []struct{ fields, name string }{
		{"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1", "Valkey 8.0.1"},
		{"redis_version:6.3.4\r\nexecutable:/usr/bin/keydb-server", "Redis 6.3.4"},
		{"redis_version:7.4.0\r\ndragonfly_version:df-v1.40.1", "Dragonfly df-v1.40.1"},
		{"garnet_version:1.0.80", "Garnet 1.0.80"},
		{"redis_version:4.0.0\r\nkvrocks_version:2.9.0", "Kvrocks 2.9.0"},
		{"redis_version:unknown", "Redis unknown"},
	} {
		relay := redistest.StartDamagingRelay(t, target.Addr(), func(reply []byte) []byte {
			if !bytes.Contains(reply, []byte("redis_version:")) {
				return reply
			}
			text := "# Server\r\n" + c.fields + "\r\n"
			return fmt.Appendf(nil, "$%d\r\n%s\r\n", len(text), text)
		})
		server := parse(t, relay.URL(), redis.ServerOptions{})
		for _, change := range []func(*Inspection){nil, ofStream} {
			found := run(t, server, change)
			found.wantGood(t)
			found.want(t, OK, "redis-version", c.name+" responds in")
		}
	}
}
