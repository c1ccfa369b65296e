package redis

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

func TestPipelinedMessagesArriveInOrderWithoutLoss(t *testing.T) {
	t.Parallel()
	const messages, users = 20_000, 200
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.ProbeEvery = 20 * time.Millisecond })
	h.awaitGeneration(t, 1)

	publisher := h.server.NewClient(topology.Target{}, func(c net.Conn) net.Conn { return c })
	defer publisher.Close()
	want := []string{"generation 1"}
	for first := 0; first < messages; first += 1000 {
		_, err := publisher.Pipelined(context.Background(), func(p goredis.Pipeliner) error {
			for i := first; i < first+1000; i++ {
				user := strconv.Itoa(i % users)
				p.Publish(context.Background(), "user-"+user+":t", i)
				want = append(want, user+"/t/"+strconv.Itoa(i))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "all messages were received", func() bool { return h.Stats().Received >= messages })
	h.stop()
	if got := h.seen(); !slices.Equal(got, want) {
		t.Errorf("%d events, want %d: lost, duplicated or out of order", len(got), len(want))
	}
	if s := h.conserved(t); s.Routed != messages {
		t.Errorf("stats %+v", s)
	}
}

func TestEachMessageIsCountedByItsOutcome(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.MaxPayload, c.Channels.Groups = 100, "group-" })
	h.awaitGeneration(t, 1)
	huge := strings.Repeat("u", 1<<20)
	for _, m := range []struct{ channel, payload, event string }{
		{"user-", "no user", ""},
		{"user-:topic", "no user", ""},
		{"user-:", strings.Repeat("x", 101), ""}, // malformed and too large: there is no user to notify
		{"user-42:big", strings.Repeat("x", 101), "too large 42/big"},
		{"user-42:full", strings.Repeat("x", 100), "42/full/" + strings.Repeat("x", 100)},
		{"user-" + huge + ":t", "p", huge + "/t/p"},
		{"user-\xff\xfe:\xc0", "\x80\x00\r\n", "\xff\xfe/\xc0/\x80\x00\r\n"},
		{"user-[a]*?\\:^", "glob", "[a]*?\\/^/glob"},
		{"user-42", "", "42//"},
		{"user-*:news", "broadcast", "*/news/broadcast"},
		{"user-nobody:t", "unheard", ""},
		{"group-", "no group", ""},
		{"group-:topic", strings.Repeat("x", 101), ""},
		{"group-42:big", strings.Repeat("x", 101), "too large group 42/big"},
		{"group-42:full", strings.Repeat("x", 100), "group 42/full/" + strings.Repeat("x", 100)},
		{"group-" + huge + ":t", "p", "group " + huge + "/t/p"},
		{"group-[a]*?\\:^", "glob", "group [a]*?\\/^/glob"},
		{"group-*:news", "no broadcast", "group */news/no broadcast"},
		{"user-42:last", "x", "42/last/x"},
	} {
		server.Do("publish", m.channel, m.payload)
		if m.event != "" {
			eventually(t, fmt.Sprintf("%.40q was received", m.event), func() bool { return slices.Contains(h.seen(), m.event) })
		}
	}
	s := h.conserved(t)
	if s.Received != 19 || s.Malformed != 5 || s.TooLarge != 2 || s.Unrouted != 1 || s.Routed != 11 {
		t.Errorf("stats %+v", s)
	}
	if s.Feed != "pubsub" || s.Redis != server.Addr() || s.Generation != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestPrefixIsMatchedLiterally(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for _, prefix := range []string{"*", "u?er-", `a\b[c-e]^*:`, "[", "\xff "} {
		h := start(t, parse(t, server.URL(), ServerOptions{}), func(c *PubSubConfig) { c.Channels = Channels{Users: prefix, Groups: "g" + prefix} })
		h.awaitGeneration(t, 1)
		for _, other := range []string{"user-1", "uxer-1", `a\bc^x:1`, "abd^:1", "c1", "guser-1", "guxer-1", `ga\bc^x:1`, "gc1"} {
			if n := server.Do("publish", other, "x"); n != int64(0) {
				t.Errorf("prefix %q also receives %q", prefix, other)
			}
		}
		if n := server.Do("publish", prefix+"42:t", "x"); n != int64(1) {
			t.Errorf("prefix %q does not receive its own messages", prefix)
		}
		h.awaitEvent(t, "42/t/x")
		if n := server.Do("publish", "g"+prefix+"42:t", "x"); n != int64(1) {
			t.Errorf("prefix %q does not receive messages to groups", "g"+prefix)
		}
		h.awaitEvent(t, "group 42/t/x")
		h.stop()
	}
}
