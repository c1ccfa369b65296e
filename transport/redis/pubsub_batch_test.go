package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/hub"
	"usercast/transport/redis"
)

// batches records what a feed without markers does with the hub and the streams.
type batches struct {
	*hub.PubSub // nil

	mu        sync.Mutex
	corked    bool
	corks     int
	published []string // the first 10 bytes of each payload
	wrong     []string
}

func (b *batches) check(ok bool, what string) {
	if !ok {
		b.wrong = append(b.wrong, what)
	}
}

func (b *batches) Cork() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.check(!b.corked, "corked twice")
	b.corked = true
	b.corks++
}

func (b *batches) Uncork() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.check(b.corked, "uncorked twice")
	b.corked = false
}

func (b *batches) Publish(_ hub.Recipient, _, payload string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.check(b.corked, "published uncorked")
	b.published = append(b.published, payload[:min(len(payload), 10)])
	return 1
}

func (b *batches) GapFor(hub.Recipient, string, hub.Gap) {}
func (b *batches) Skip()                                 {}
func (b *batches) Begin()                                {}
func (b *batches) Disconnect(string) int                 { return 0 }

// await waits until n messages were published and the streams are not corked, and returns the number of batches so far.
func (b *batches) await(t *testing.T, n int) (corks int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		b.mu.Lock()
		published, corked, corks, wrong := len(b.published), b.corked, b.corks, b.wrong
		b.mu.Unlock()
		if len(wrong) > 0 {
			t.Fatal(wrong)
		}
		if published == n && !corked {
			return corks
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages were published, want %d; corked: %t", published, n, corked)
		}
	}
}

// subscribed starts a feed, and returns the server's end of its subscription.
func subscribed(t *testing.T, b *batches, maxPayload int) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	server, err := redis.ParseServer("redis://"+l.Addr().String(), redis.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	feed, err := redis.NewPubSub(redis.PubSubConfig{
		Server: server, Hub: b, Streams: b, MaxPayload: maxPayload, PingAfter: time.Hour, ProbeEvery: time.Hour, NoMarkers: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = feed.Run(ctx) })
	t.Cleanup(func() { stop(); running.Wait() })
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for in, n := bufio.NewReader(conn), 0; n < 3; { // subscriptions
		command, err := readCommand(in)
		if err != nil {
			t.Fatal(err)
		}
		reply := "-ERR unknown command\r\n"
		if name := strings.ToLower(command[0]); strings.HasSuffix(name, "subscribe") {
			n++
			reply = "*3\r\n" + bulk(name) + bulk(command[1]) + ":1\r\n"
		}
		if _, err := conn.Write([]byte(reply)); err != nil {
			t.Fatal(err)
		}
	}
	return conn
}

func message(payload string) string {
	return "*4\r\n" + bulk("pmessage") + bulk("user-*") + bulk("user-42") + bulk(payload)
}

func send(t *testing.T, conn net.Conn, text []byte) {
	t.Helper()
	if _, err := conn.Write(text); err != nil {
		t.Fatal(err)
	}
}

// All messages that have arrived are delivered in one batch, and the streams are uncorked before the feed waits. This
// also holds if the beginning of a large message has arrived with them.
func TestStreamsAreCorkedForABatchAndNeverWhileWaiting(t *testing.T) {
	t.Parallel()
	b := new(batches)
	conn := subscribed(t, b, 1<<20)
	var text strings.Builder
	for i := range 100 {
		text.WriteString(message(fmt.Sprint(i)))
	}
	send(t, conn, []byte(text.String()))
	if corks := b.await(t, 100); corks > 10 {
		t.Errorf("100 messages in %d batches", corks)
	}

	large := message(strings.Repeat("x", 1<<20))
	for _, split := range []int{1, 20, 60, 1000, 31 << 10, 33 << 10, 100 << 10, len(large) - 1} {
		b.mu.Lock()
		before := len(b.published)
		b.mu.Unlock()
		send(t, conn, []byte(message("before")+large[:split]))
		b.await(t, before+1)
		send(t, conn, []byte(large[split:]+message("after")))
		b.await(t, before+3)
	}
}

// Not parallel, so that the memory of other tests is not counted.
func TestLargeMessageIsInMemoryOnce(t *testing.T) {
	const size = 32 << 20
	b := new(batches)
	conn := subscribed(t, b, size)
	text := []byte(message(strings.Repeat("x", size)))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	send(t, conn, text)
	b.await(t, 1)
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > size*3/2 {
		t.Errorf("%d MiB were allocated for a message of %d MiB", grown>>20, size>>20)
	}
}
