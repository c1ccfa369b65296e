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

// R1: A generation begins when the pattern is confirmed, so that messages from then on belong to it. The control channel
// comes after it: after a marker, all hubs must receive the same messages. The hub is connected when both are confirmed.
func TestR1GenerationBeginsAtThePattern(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server, err := redis.ParseServer("redis://"+l.Addr().String(), redis.ServerOptions{AnswerTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	h := orderedHub{hub.NewPubSub(hub.Config{}), make(chan string, 10)}
	feed, err := redis.NewPubSub(redis.PubSubConfig{Server: server, Hub: h, PingAfter: time.Hour, ProbeEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = feed.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })

	// accept returns the server's end of a connection with three subscriptions that it has not confirmed, and their
	// confirmations.
	accept := func() (conn net.Conn, confirmations []string) {
		conn, err := l.Accept()
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
			if name := strings.ToLower(command[0]); strings.HasSuffix(name, "subscribe") {
				requested = append(requested, name+" "+strings.Join(command[1:], " "))
				confirmations = append(confirmations, "*3\r\n"+bulk(name)+bulk(command[1])+":1\r\n")
				continue
			}
			send(t, conn, []byte("-ERR unknown command\r\n"))
		}
		if requested[0] != "psubscribe user-*" || requested[1] != "subscribe usercast:user-control" || !strings.HasPrefix(requested[2], "subscribe usercast:user-probe:") {
			t.Fatalf("requested %q, want the pattern, then the control channel, then the probe channel", requested)
		}
		return conn, confirmations
	}

	conn, confirmations := accept()
	send(t, conn, []byte(confirmations[0]+message("one")))
	h.await(t, "begin")
	h.await(t, "one")
	if s := feed.Stats(); s.Connected || s.Generation != 0 || s.Received != 1 {
		t.Errorf("stats %+v before the control channel was confirmed", s)
	}
	conn.Close()

	// The first connection ended between the confirmations, but it had begun a generation.
	conn, confirmations = accept()
	send(t, conn, []byte(confirmations[0]+message("two")+confirmations[1]+message("three")+confirmations[2]))
	for _, want := range []string{"begin", "two", "three"} {
		h.await(t, want)
	}
	for deadline := time.Now().Add(20 * time.Second); !feed.Stats().Connected; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not connected after all confirmations")
		}
	}
	if s := feed.Stats(); s.Generation != 1 || s.Received != 3 {
		t.Errorf("stats %+v", s)
	}
}
