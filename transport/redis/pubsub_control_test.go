package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// noteControl makes a feed send its control commands to a channel.
func noteControl(controls chan<- Control) func(*PubSubConfig) {
	return func(c *PubSubConfig) { c.Control = func(command Control) { controls <- command } }
}

func awaitControl(t *testing.T, controls <-chan Control, want Control) {
	t.Helper()
	select {
	case got := <-controls:
		if got != want {
			t.Errorf("command %+v, want %+v", got, want)
		}
	case <-time.After(patience):
		t.Fatalf("the control command %+v was not received", want)
	}
}

func TestControlCommandReachesEachHub(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	redis := parse(t, server.URL(), ServerOptions{})
	controls := make([]chan Control, 3)
	hubs := make([]*subscriber, 3)
	for i := range hubs {
		controls[i] = make(chan Control, 10)
		hubs[i] = start(t, redis, noteControl(controls[i]))
		hubs[i].awaitGeneration(t, 1)
	}
	c := NewCommands(redis)
	defer c.Close()
	for _, user := range []string{"42", "*", "ü\r\n\xff"} {
		command := Control{Op: OpDisconnect, User: user}
		if receivers, err := c.PublishControl(context.Background(), ControlChannel("user-"), command); err != nil || receivers != 3 {
			t.Errorf("PublishControl = %d, %v, want 3 hubs", receivers, err)
		}
		want, err := ParseControl(command.String())
		if err != nil {
			t.Fatal(err)
		}
		for i := range controls {
			awaitControl(t, controls[i], want)
		}
	}
	for _, h := range hubs {
		if s := h.conserved(t); s.ControlReceived != 3 || s.ControlMalformed != 0 || s.Received != 0 {
			t.Errorf("stats %+v: a control command is not a message", s)
		}
		h.log.warnings(t, 0)
	}
	eventually(t, "there were two connections for each hub and one for commands", func() bool { return len(connections(server)) == 7 })
}

// Each connected hub receives control commands. The name of the control channel is not a pattern.
func TestConnectedHubReceivesControlCommands(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	controls := make(chan Control, 1)
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) {
		noteControl(controls)(c)
		c.ControlChannel = "orders*"
	})
	for n := range uint64(5) {
		h.awaitGeneration(t, n+1)
		if n := server.Do("publish", "orders*", `{"op":"disconnect","user":"42"}`); n != int64(1) {
			t.Errorf("%v hubs received it", n)
		}
		awaitControl(t, controls, Control{OpDisconnect, "42"})
		server.Do("client", "kill", "type", "pubsub")
	}
}

func TestMalformedControlCommandsAreCountedAndLoggedOnce(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	controls := make(chan Control, 1)
	h := start(t, parse(t, server.URL(), ServerOptions{}), noteControl(controls))
	h.awaitGeneration(t, 1)
	for _, payload := range []string{"secret", `{"op":"secret"}`, "", `{"op":"disconnect","user":""}`, strings.Repeat("secret", 10_000)} {
		server.Do("publish", ControlChannel("user-"), payload)
	}
	server.Do("publish", ControlChannel("user-"), `{"op":"disconnect","user":"42"}`)
	awaitControl(t, controls, Control{OpDisconnect, "42"})
	if s := h.conserved(t); s.ControlReceived != 6 || s.ControlMalformed != 5 || s.Received != 0 {
		t.Errorf("stats %+v", s)
	}
	h.log.once(t, "WARN malformed control command", "commands=1")
	h.log.warnings(t, 1)
	h.log.mustNotContain(t, "secret")
}

func TestMissingPermissionForTheControlChannelIsLogged(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("acl", "setuser", "app", "on", ">secret", "+@all", "resetchannels", "&user-*", "&usercast:user-probe:*")
	controls := make(chan Control, 1)
	h := start(t, parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}), func(c *PubSubConfig) {
		noteControl(controls)(c)
		c.ProbeEvery = 20 * time.Millisecond
	})
	h.awaitGeneration(t, 1)
	h.awaitDelivery(t, server, "x")
	eventually(t, "a probe was received", func() bool { return probes(h) > 0 })
	h.log.once(t, "WARN redis permission missing", "command=SUBSCRIBE to the control channel", "hint=ACL SETUSER app +subscribe &usercast:user-control")
	h.log.warnings(t, 1)

	// Commands return the same advice.
	c := NewCommands(h.cfg.Server)
	defer c.Close()
	if _, err := c.PublishControl(context.Background(), ControlChannel("user-"), Control{OpDisconnect, "42"}); err == nil || !strings.Contains(err.Error(), "+publish &usercast:user-control") {
		t.Errorf("%v", err)
	}
	server.Do("acl", "setuser", "app", "&usercast:user-control")
	server.Do("client", "kill", "type", "pubsub")
	h.awaitGeneration(t, 2)
	if n := server.Do("publish", ControlChannel("user-"), `{"op":"disconnect","user":"42"}`); n != int64(1) {
		t.Errorf("%v hubs received it", n)
	}
	awaitControl(t, controls, Control{OpDisconnect, "42"})
}

func TestR24ControlChannelThatThePatternMatchesIsRejected(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "user-", "user-control", "user-*"} {
		if (Channels{Users: "user-"}).ValidateControlChannel(bad) == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for _, good := range []string{"user", "orders", "usercast:user-control", "*", "User-x"} {
		if err := (Channels{Users: "user-"}).ValidateControlChannel(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	_, err := NewPubSub(PubSubConfig{
		Server: parse(t, "redis://127.0.0.1:1", ServerOptions{}), Channels: Channels{Users: "user-"}, ControlChannel: "user-control",
		Hub: noStreams{},
	})
	if err == nil || !strings.Contains(err.Error(), "control channel") {
		t.Errorf("%v", err)
	}
	_, err = NewPubSub(PubSubConfig{
		Server: parse(t, "redis://127.0.0.1:1", ServerOptions{}), Channels: Channels{Groups: "group-"}, ControlChannel: "group-control",
		Hub: noStreams{},
	})
	if err == nil || !strings.Contains(err.Error(), "the control channel must not start with the group prefix") {
		t.Errorf("%v", err)
	}
	// The default depends on the prefix, and never matches it.
	for _, prefix := range []string{"*", "usercast-", "usercast:x", "a"} {
		if err := (Channels{Users: prefix}).ValidateControlChannel(ControlChannel(prefix)); err != nil {
			t.Errorf("prefix %q: %v", prefix, err)
		}
	}
}

// Two feeds on two servers with the same prefix: each message arrives once, and a feed ignores the probes of the
// other.
func TestTwoServersSideBySide(t *testing.T) {
	t.Parallel()
	var servers []*redistest.Server
	var hubs []*subscriber
	for range 2 {
		server := redistest.Start(t)
		h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
		h.awaitGeneration(t, 1)
		servers, hubs = append(servers, server), append(hubs, h)
	}
	if hubs[0].probeChannel == hubs[1].probeChannel {
		t.Errorf("both probe on %s", hubs[0].probeChannel)
	}
	for i, h := range hubs {
		h.awaitDelivery(t, servers[i], fmt.Sprint("on ", i))
		eventually(t, "probes were received", func() bool { return probes(h) >= 3 })
	}
	servers[0].Kill()
	hubs[0].log.await(t, "reason=refused")
	hubs[1].awaitDelivery(t, servers[1], "still")
	if s := hubs[1].conserved(t); s.Generation != 1 || s.Received != 2 {
		t.Errorf("stats %+v of the other feed", s)
	}
	if slices.Contains(hubs[0].seen(), "42/activity/still") {
		t.Error("one received what was published on the other")
	}
}
