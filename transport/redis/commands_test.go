package redis

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/internal/redistest"
)

func TestCommandsUseThreeConnectionsAndCloseThem(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr())
	c := NewCommands(parse(t, relay.URL(), ServerOptions{}))
	c.age = 4 * time.Second // longer than a stall of the machine
	defer c.Close()

	server.Freeze() // so that all of them wait for a reply at the same time
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if n, err := c.Publish(context.Background(), "user-42", "x"); err != nil || n != 0 {
				t.Errorf("Publish = %d, %v", n, err)
			}
		})
	}
	eventually(t, "three connections were made", func() bool { return relay.Accepted() == 3 })
	server.Thaw()
	wg.Wait()
	if n := len(connections(server)); n != 3 || relay.Accepted() != 3 {
		t.Errorf("%d connections, %d made, want 3", n, relay.Accepted())
	}
	eventually(t, "they were closed", func() bool { return len(connections(server)) == 0 })
	if _, err := c.Publish(context.Background(), "user-42", "x"); err != nil {
		t.Errorf("after a pause: %v", err)
	}
	if n := len(connections(server)); n != 1 {
		t.Errorf("%d connections after one command, want 1", n)
	}
	c.Close()
	eventually(t, "the last was closed", func() bool { return len(connections(server)) == 0 })
	if _, err := c.Publish(context.Background(), "user-42", "x"); err == nil {
		t.Error("Publish works after Close")
	}
}

func TestIdleConnectionsOfCommandsAreClosedInTime(t *testing.T) {
	t.Parallel()
	if c := NewCommands(nil); c.age >= 10*time.Second || cap(c.slots)+1 > 4 { // and one for markers
		t.Errorf("%d connections are kept for %v, want at most 3 for less than 10s", cap(c.slots), c.age)
	}
}

func TestCommandsReconnect(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := NewCommands(parse(t, server.URL(), ServerOptions{AnswerTimeout: 300 * time.Millisecond}))
	defer c.Close()
	publish := func() error {
		_, err := c.Publish(context.Background(), "user-42", "x")
		return err
	}
	if err := publish(); err != nil {
		t.Fatal(err)
	}
	server.Kill()
	eventually(t, "the failure was explained", func() bool {
		err := publish()
		return err != nil && strings.Contains(err.Error(), "connection refused; check that Redis is running")
	})
	server.Restart()
	if err := publish(); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	server.Freeze()
	if err := publish(); err == nil || !strings.Contains(err.Error(), "does not respond") {
		t.Errorf("of a frozen Redis: %v", err)
	}
	server.Thaw()
	if err := publish(); err != nil {
		t.Errorf("after a thaw: %v", err)
	}
}

func TestCommandIsCanceled(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	c := NewCommands(parse(t, server.URL(), ServerOptions{}))
	defer c.Close()
	server.Freeze()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := c.Publish(ctx, "user-42", "x"); err == nil {
		t.Error("published to a frozen Redis")
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("a deadline of 100ms ended it after %v", took)
	}
	server.Thaw()
}

func TestCommandWithoutPermissionSaysWhatToGrant(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("acl", "setuser", "app", "on", ">secret", "-@all")
	c := NewCommands(parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}))
	defer c.Close()
	_, err := c.Publish(context.Background(), "user-42", "x")
	if err == nil || !strings.Contains(err.Error(), "user app is not allowed to publish; ACL SETUSER app +publish") {
		t.Errorf("%v", err)
	}
	server.Do("acl", "setuser", "app", "+publish", "&user-*")
	if _, err := c.Publish(context.Background(), "user-42", "x"); err != nil {
		t.Errorf("after the grant: %v", err)
	}
}

// The advice names what Redis has refused: a user who may already publish to users needs the channels of groups.
func TestCommandWithoutPermissionNamesTheChannelThatWasRefused(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("acl", "setuser", "app", "on", ">secret", "resetchannels", "&user-*", "+@all")
	c := NewCommands(parse(t, "redis://app:secret@"+server.Addr(), ServerOptions{}))
	defer c.Close()
	c.UseChannels(Channels{Users: "user-", Groups: "group[1]-"})
	const want = "user app is not allowed to publish; ACL SETUSER app "
	if _, err := c.Publish(t.Context(), "group[1]-a:t", "x"); err == nil || err.Error() != want+`&group\[1]-*` {
		t.Errorf("publish to a group: %v", err)
	}
	if _, err := c.PublishAll(t.Context(), []Message{{"user-42", "x"}, {"group[1]-a", "x"}, {"user-43", "x"}}); err == nil || err.Error() != want+`&group\[1]-*` {
		t.Errorf("publish several messages: %v", err)
	}
	if _, err := c.Publish(t.Context(), "other*", "x"); err == nil || err.Error() != want+`&other\*` {
		t.Errorf("publish to another channel: %v", err)
	}
	server.Do("acl", "setuser", "app", "-publish")
	if _, err := c.Publish(t.Context(), "group[1]-a", "x"); err == nil || err.Error() != want+`+publish and a channel pattern such as &group\[1]-*` {
		t.Errorf("without the command: %v", err)
	}
	server.Do("acl", "setuser", "app", "+publish", `&group\[1]-*`)
	if _, err := c.Publish(t.Context(), "group[1]-a:t", "x"); err != nil {
		t.Errorf("after the grant: %v", err)
	}
}

// A demoted primary still executes PUBLISH. As soon as the subscription is at the new primary, messages of the API must
// reach it again, however often the API is used.
func TestCommandsFollowTheSubscription(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, a.Addr())
	server := parse(t, relay.URL(), ServerOptions{})
	c := NewCommands(server)
	c.age = time.Hour
	defer c.Close()
	first := make(chan string, 1)
	h := new(subscriber)
	h.onBegin = func() {
		if h.generations != 1 {
			return
		}
		n, err := c.Publish(context.Background(), "user-42", "x")
		first <- fmt.Sprint(n, err)
	}
	startSubscriber(t, server, h, func(cfg *PubSubConfig) { cfg.ProbeEvery = 300 * time.Millisecond })
	h.awaitGeneration(t, 1)
	host, port := b.HostPort()
	if n, err := c.Publish(context.Background(), "user-42", "before"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	relay.SetTarget(b.Addr())
	a.Do("replicaof", host, port)
	h.awaitGeneration(t, 2)
	if n, err := c.PublishControl(context.Background(), ControlChannel("user-"), Control{Op: OpDisconnect, User: "42"}); n != 1 || err != nil {
		t.Errorf("an order reached %d subscribers, error %v", n, err)
	}
	if got := <-first; got != "1 <nil>" {
		t.Errorf("the first PUBLISH after the generation began: %s, want 1 subscriber", got)
	}
}

// The same with the stream feed: appended entries are read.
func TestAppendFollowsTheStreamFeed(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, a.Addr())
	server := parse(t, relay.URL(), ServerOptions{})
	c := NewCommands(server)
	c.age = time.Hour
	defer c.Close()
	f := follow(t, server, func(cfg *StreamConfig) { cfg.ProbeEvery = 300 * time.Millisecond })
	if _, err := c.Append(context.Background(), "log", "user-42", "before"); err != nil {
		t.Fatal(err)
	}
	relay.SetTarget(b.Addr())
	f.connected(t, 2)
	if _, err := c.Append(context.Background(), "log", "user-42", "after"); err != nil {
		t.Fatal(err)
	}
	if n := b.Do("xlen", "log"); n != int64(1) {
		t.Errorf("the new primary has %v entries, want 1", n)
	}
}

// Another hub may have detected the failover first. A program without a feed never does.
func TestCommandConnectionsAreReplacedAlthoughInUse(t *testing.T) {
	t.Parallel()
	a, b := redistest.Start(t), redistest.Start(t)
	relay := redistest.StartRelay(t, a.Addr())
	c := NewCommands(parse(t, relay.URL(), ServerOptions{}))
	c.age = 200 * time.Millisecond
	defer c.Close()
	h := start(t, parse(t, b.URL(), ServerOptions{}), nil)
	h.awaitGeneration(t, 1)
	publish := func() int64 {
		n, err := c.Publish(context.Background(), "user-42", "x")
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := publish(); n != 0 {
		t.Errorf("published to %d subscribers of a server without any", n)
	}
	relay.SetTarget(b.Addr())
	eventually(t, "a command reached the new primary", func() bool { return publish() == 1 })
}
