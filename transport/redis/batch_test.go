package redis

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/redistest"
)

// batchOf returns n numbered messages for a channel. Some are large, so that parts are limited by their size, too.
func batchOf(n int) (messages []Message) {
	for i := range n {
		payload := fmt.Sprint(i)
		if i%250 == 0 {
			payload += strings.Repeat(" ", 700<<10)
		}
		messages = append(messages, Message{"user-1", payload})
	}
	return messages
}

func TestPartsOfABatch(t *testing.T) {
	t.Parallel()
	next := 0
	for part := range parts(batchOf(1000)) {
		bytes := 0
		for _, m := range part {
			if got := strings.TrimSpace(m.Payload); got != fmt.Sprint(next) {
				t.Fatalf("message %s is in the place of %d", got, next)
			}
			next++
			if bytes >= maxPartBytes {
				t.Fatalf("message %d is in a part that was full", next)
			}
			bytes += len(m.Payload)
		}
		if len(part) == 0 || len(part) > maxPart {
			t.Errorf("a part has %d messages", len(part))
		}
	}
	if next != 1000 {
		t.Errorf("%d messages are in parts", next)
	}
	for range parts(nil) {
		t.Error("no messages have a part")
	}
}

// A batch goes through the node where the hubs are, as a single message does, over one connection.
func TestBatchIsPublishedToACluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 3)
	server := parse(t, clusterURL("", nodes...), ServerOptions{})
	h := start(t, server, nil)
	h.awaitGeneration(t, 1)
	c := NewCommands(server)
	defer c.Close()
	c.PublishNearHubs(ControlChannel("user-"))
	messages := batchOf(300)
	if n, err := c.PublishAll(context.Background(), messages); n != len(messages) || err != nil {
		t.Fatalf("%d messages, %v", n, err)
	}
	want := []string{"generation 1"}
	for _, m := range messages {
		want = append(want, "1//"+m.Payload)
	}
	h.awaitEvent(t, want[len(want)-1])
	if got := h.seen(); !slices.Equal(got, want) {
		t.Errorf("%d events are not the %d messages in order", len(got), len(messages))
	}
	// The hubs are at one node, which has received all.
	published := 0
	for _, node := range nodes {
		if n := callsOf(t, node, "publish"); n >= len(messages) {
			published++
		}
	}
	if published != 1 {
		t.Errorf("%d nodes have published the messages, want one", published)
	}
}

// Entries are appended once and in order, although the node that receives them redirects some.
func TestBatchFollowsTheKeyOfTheStream(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t, 2)
	app := goredis.NewClusterClient(&goredis.ClusterOptions{Addrs: []string{nodes[0].Addr(), nodes[1].Addr()}})
	defer app.Close()
	ctx := context.Background()
	c := NewCommands(parse(t, clusterURL("", nodes...), ServerOptions{}))
	defer c.Close()
	appended := 0
	step := func(when string) {
		t.Helper()
		messages := batchOf(150)
		if n, err := c.AppendAll(ctx, "log", messages); n != len(messages) || err != nil {
			t.Fatalf("%s: %d messages, %v", when, n, err)
		}
		appended += len(messages)
		entries, err := app.XRange(ctx, "log", "-", "+").Result()
		if err != nil || len(entries) != appended {
			t.Fatalf("%s: the stream has %d entries, want %d: %v", when, len(entries), appended, err)
		}
		for i, m := range messages {
			if e := entries[appended-len(messages)+i]; e.Values["ch"] != m.Channel || e.Values["data"] != m.Payload {
				t.Fatalf("%s: entry %d is %.20q", when, i, e.Values)
			}
		}
	}
	step("before")
	m := startMigration(nodes)
	step("the slot migrates, the key is still there")
	m.moveKey()
	step("the key has moved")
	m.end()
	step("the slot has moved")
}
