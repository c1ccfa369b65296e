package redis_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"usercast/hub"
	"usercast/transport/redis"
)

const benchPayload = `{"kind":"comment","id":7,"text":"a message of a common size, as an app would send it"}`

// benchBatch is the number of messages per iteration.
const benchBatch = 1000

// A message for a user without streams, like most messages of a fleet. PubSub includes routing in the hub.
// GoRedisAlone only receives the messages with go-redis, which is the minimum cost. Both read the same bytes
// as fast as possible. Compare only results of the same run.
func BenchmarkUnroutedMessages(b *testing.B) {
	b.Run("PubSub", func(b *testing.B) {
		h := hub.NewPubSub(hub.Config{
			Encode:        func(dst []byte, e hub.Entry, _ bool) []byte { return append(dst, e.Payload...) },
			BroadcastUser: "*",
		})
		defer h.Close()
		server, err := redis.ParseServer("redis://"+benchServer(b), redis.ServerOptions{})
		if err != nil {
			b.Fatal(err)
		}
		m := newMeter()
		feed, err := redis.NewPubSub(redis.PubSubConfig{
			Server:     server,
			Hub:        meteredHub{h, m},
			ProbeEvery: time.Hour, // the server does not support probes
		})
		if err != nil {
			b.Fatal(err)
		}
		m.measure(b, func(ctx context.Context) { feed.Run(ctx) })
	})
	b.Run("GoRedisAlone", func(b *testing.B) {
		client := goredis.NewClient(&goredis.Options{
			Addr:                     benchServer(b),
			Protocol:                 2,
			DisableIdentity:          true,
			MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		})
		defer client.Close()
		subscription := client.PSubscribe(context.Background(), "user-*")
		m := newMeter()
		m.measure(b, func(ctx context.Context) {
			context.AfterFunc(ctx, func() { subscription.Close() })
			for {
				received, err := subscription.Receive(context.Background())
				if err != nil {
					return
				}
				if _, ok := received.(*goredis.Message); ok {
					m.count()
				}
			}
		})
	})
}

// meteredHub counts the messages that are published to a hub.
type meteredHub struct {
	*hub.PubSub
	meter *meter
}

func (h meteredHub) Publish(to hub.Recipient, topic, payload string) int {
	n := h.PubSub.Publish(to, topic, payload)
	h.meter.count()
	return n
}

// A meter measures the time per message of a goroutine.
type meter struct {
	n       int // owned by that goroutine
	batches chan struct{}
	over    chan struct{}
}

func newMeter() *meter { return &meter{batches: make(chan struct{}), over: make(chan struct{})} }

func (m *meter) count() {
	if m.n++; m.n%benchBatch == 0 {
		select {
		case m.batches <- struct{}{}:
		case <-m.over:
		}
	}
}

// measure runs the goroutine, and reports the time per message.
func (m *meter) measure(b *testing.B, run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { run(ctx) })
	defer running.Wait()
	defer cancel()
	defer close(m.over)
	<-m.batches // connected and warmed up

	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for b.Loop() {
		<-m.batches
	}
	runtime.ReadMemStats(&after)
	messages := float64(b.N) * benchBatch
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/messages, "ns/msg")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/messages, "allocs/msg")
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/messages, "B/msg")
	b.ReportMetric(0, "ns/op") // of a batch
}

// benchServer starts a minimal Redis for a subscriber, and returns its address. It confirms subscriptions, and after
// PSUBSCRIBE it sends messages continuously.
func benchServer(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer conn.Close()
				answer(conn, &serving)
			})
		}
	})
	b.Cleanup(func() {
		l.Close()
		serving.Wait()
	})
	return l.Addr().String()
}

// answer serves one connection until the client closes it. An unknown command is an error.
func answer(conn net.Conn, serving *sync.WaitGroup) {
	var writing sync.Mutex // replies are sent between messages
	write := func(text []byte) error {
		writing.Lock()
		defer writing.Unlock()
		_, err := conn.Write(text)
		return err
	}
	for in := bufio.NewReader(conn); ; {
		command, err := readCommand(in)
		if err != nil {
			return
		}
		reply := "+OK\r\n"
		switch name := strings.ToLower(command[0]); name {
		case "hello":
			reply = "-ERR unknown command\r\n" // for HELLO: makes the client use RESP2
		case "info":
			reply = "$0\r\n\r\n"
		case "subscribe", "psubscribe":
			reply = "*3\r\n" + bulk(name) + bulk(command[1]) + ":1\r\n"
		}
		if write([]byte(reply)) != nil {
			return
		}
		if strings.EqualFold(command[0], "psubscribe") {
			serving.Go(func() {
				for messages := benchMessages(); write(messages) == nil; {
				}
			})
		}
	}
}

// readCommand reads one array of strings.
func readCommand(in *bufio.Reader) (command []string, err error) {
	var n int
	if _, err := fmt.Fscanf(in, "*%d\r\n", &n); err != nil {
		return nil, err
	}
	for range n {
		var size int
		if _, err := fmt.Fscanf(in, "$%d\r\n", &size); err != nil {
			return nil, err
		}
		text := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		command = append(command, string(text[:size]))
	}
	return command, nil
}

// benchMessages returns messages for 10,000 users, as Redis sends them.
func benchMessages() []byte {
	var text bytes.Buffer
	for i := range 10_000 {
		channel := "user-" + strconv.Itoa(100_000+i) + ":activity"
		text.WriteString("*4\r\n" + bulk("pmessage") + bulk("user-*") + bulk(channel) + bulk(benchPayload))
	}
	return text.Bytes()
}

func bulk(s string) string { return "$" + strconv.Itoa(len(s)) + "\r\n" + s + "\r\n" }
