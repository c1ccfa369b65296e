package redis_test

import (
	"bufio"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/hub"
	"usercast/transport/redis"
)

// orderedHub reports the calls of a feed in their order.
type orderedHub struct {
	*hub.PubSub
	events chan string
}

func (h orderedHub) Publish(_ hub.Recipient, _, payload string) int { h.events <- payload; return 1 }
func (h orderedHub) Begin()                                         { h.events <- "begin" }

func (h orderedHub) await(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-h.events:
		if got != want {
			t.Fatalf("%q was received, want %q", got, want)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("%q was not received", want)
	}
}

// A stage is a server whose replies a test sends itself.
type stage struct {
	listener net.Listener
	hub      orderedHub
	feed     *redis.PubSub
}

// startStage runs a feed that subscribes at a stage.
func startStage(t *testing.T, channels redis.Channels) *stage {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := redis.ParseServer("redis://"+l.Addr().String(), redis.ServerOptions{AnswerTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{listener: l, hub: orderedHub{hub.NewPubSub(hub.Config{}), make(chan string, 10)}}
	s.feed, err = redis.NewPubSub(redis.PubSubConfig{Server: server, Hub: s.hub, Channels: channels, PingAfter: time.Hour, ProbeEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.feed.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait(); l.Close() })
	return s
}

// accept returns the server's end of a connection with subscriptions that it has not confirmed, and their confirmations: of
// the patterns, of the control channel and of the probe channel. The patterns must be requested with one command.
func (s *stage) accept(t *testing.T, patterns ...string) (conn net.Conn, confirmations []string) {
	t.Helper()
	conn, err := s.listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	var requested []string
	for in := bufio.NewReader(conn); len(requested) < 3; {
		command, err := readCommand(in)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ToLower(command[0])
		if !strings.HasSuffix(name, "subscribe") {
			send(t, conn, []byte("-ERR unknown command\r\n"))
			continue
		}
		requested = append(requested, name+" "+strings.Join(command[1:], " "))
		for _, channel := range command[1:] {
			confirmations = append(confirmations, "*3\r\n"+bulk(name)+bulk(channel)+":1\r\n")
		}
	}
	if requested[0] != "psubscribe "+strings.Join(patterns, " ") || requested[1] != "subscribe usercast:user-control" || !strings.HasPrefix(requested[2], "subscribe usercast:user-probe:") {
		t.Fatalf("requested %q, want the patterns %q, then the control channel, then the probe channel", requested, patterns)
	}
	return conn, confirmations
}

func (s *stage) connected(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !s.feed.Stats().Connected; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not connected after all confirmations")
		}
	}
}

// R1: A generation begins when the pattern is confirmed, so that messages from then on belong to it. The control channel
// comes after it: after a marker, all hubs must receive the same messages. The hub is connected when both are confirmed.
func TestR1GenerationBeginsAtThePattern(t *testing.T) {
	t.Parallel()
	s := startStage(t, redis.Channels{})
	conn, confirmations := s.accept(t, "user-*")
	send(t, conn, []byte(confirmations[0]+message("one")))
	s.hub.await(t, "begin")
	s.hub.await(t, "one")
	if stats := s.feed.Stats(); stats.Connected || stats.Generation != 0 || stats.Received != 1 {
		t.Errorf("stats %+v before the control channel was confirmed", stats)
	}
	conn.Close()

	// The first connection ended between the confirmations, but it had begun a generation.
	conn, confirmations = s.accept(t, "user-*")
	send(t, conn, []byte(confirmations[0]+message("two")+confirmations[1]+message("three")+confirmations[2]))
	for _, want := range []string{"begin", "two", "three"} {
		s.hub.await(t, want)
	}
	s.connected(t)
	if stats := s.feed.Stats(); stats.Generation != 1 || stats.Received != 3 {
		t.Errorf("stats %+v", stats)
	}
}

// R3: All patterns are subscribed to with one command, and the generation begins when the first of them is confirmed: a
// message between the two confirmations belongs to it. The second one does not begin another.
func TestR3GenerationBeginsAtTheFirstPattern(t *testing.T) {
	t.Parallel()
	s := startStage(t, redis.Channels{Groups: "group-"})
	conn, confirmations := s.accept(t, "group-*", "user-*")
	send(t, conn, []byte(confirmations[0]+groupMessage("one")))
	s.hub.await(t, "begin")
	s.hub.await(t, "one")
	if stats := s.feed.Stats(); stats.Connected || stats.Received != 1 {
		t.Errorf("stats %+v before the second pattern was confirmed", stats)
	}
	send(t, conn, []byte(confirmations[1]+message("two")+groupMessage("three")))
	s.hub.await(t, "two")
	s.hub.await(t, "three")
	if s.feed.Stats().Connected {
		t.Error("connected before the control channel was confirmed")
	}
	send(t, conn, []byte(confirmations[2]+confirmations[3]+groupMessage("four")))
	s.hub.await(t, "four")
	s.connected(t)
	conn.Close()

	// A server that confirms them in another order has not executed this command.
	conn, confirmations = s.accept(t, "group-*", "user-*")
	send(t, conn, []byte(confirmations[1]+message("lost")))
	conn, confirmations = s.accept(t, "group-*", "user-*")
	send(t, conn, []byte(confirmations[0]+confirmations[1]+message("five")+confirmations[2]+confirmations[3]))
	s.hub.await(t, "begin")
	s.hub.await(t, "five")
	s.connected(t)
	if stats := s.feed.Stats(); stats.Generation != 2 || stats.Received != 5 {
		t.Errorf("stats %+v", stats)
	}
}

// A message that matched a pattern of no subscription is not one of this connection.
func TestMessageForAnotherPatternEndsTheConnection(t *testing.T) {
	t.Parallel()
	s := startStage(t, redis.Channels{})
	conn, confirmations := s.accept(t, "user-*")
	send(t, conn, []byte(strings.Join(confirmations, "")+groupMessage("lost")))
	conn, confirmations = s.accept(t, "user-*")
	send(t, conn, []byte(strings.Join(confirmations, "")+message("one")))
	for _, want := range []string{"begin", "begin", "one"} {
		s.hub.await(t, want)
	}
}

func groupMessage(payload string) string {
	return "*4\r\n" + bulk("pmessage") + bulk("group-*") + bulk("group-7") + bulk(payload)
}
