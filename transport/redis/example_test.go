package redis_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/alicebob/miniredis/v2"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// A feed over pub/sub. The example of package sse shows a whole program.
func ExamplePubSub() {
	store, server := startRedis() // use a real Redis in production
	defer store.Close()

	users := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry, BroadcastUser: "*"})
	streams := sse.New(sse.Config{Hub: users.Hub, Authenticate: auth.Insecure})
	feed, err := redis.NewPubSub(redis.PubSubConfig{Server: server, Hub: users, Streams: streams})
	if err != nil {
		log.Fatal(err)
	}

	stop := run(feed)
	defer stop()
	page, end := openPage(users.Hub, streams)
	store.Publish("user-42:activity", "hello")
	fmt.Println(<-page)
	end()
	// Output: hello
}

// A feed from a Redis stream, whose entries keep their ids: a page can resume at any hub. The hub
// requests entries that it does not have from the feed.
func ExampleStreamFeed() {
	store, server := startRedis() // use a real Redis in production
	defer store.Close()

	var feed *redis.StreamFeed
	users := hub.NewStreamFeed(hub.Config{Encode: sse.EncodeEntry, BroadcastUser: "*"}, func(q *hub.Query) { feed.Query(q) })
	streams := sse.New(sse.Config{Hub: users.Hub, Authenticate: auth.Insecure})
	feed, err := redis.NewStreamFeed(redis.StreamConfig{Server: server, Hub: users, Streams: streams, Key: "usercast:log"})
	if err != nil {
		log.Fatal(err)
	}

	stop := run(feed)
	defer stop()
	page, end := openPage(users.Hub, streams)
	commands := redis.NewCommands(server)
	defer commands.Close()
	if _, err := commands.Append(context.Background(), "usercast:log", "user-42:activity", "hello"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-page)
	end()
	// Output: hello
}

func startRedis() (*miniredis.Miniredis, *redis.Server) {
	store := miniredis.NewMiniRedis()
	if err := store.Start(); err != nil {
		log.Fatal(err)
	}
	server, err := redis.ParseServer("redis://"+store.Addr(), redis.ServerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	return store, server
}

// run runs a feed until stop is called, and waits until it is connected.
func run(feed interface {
	Run(context.Context) error
	Stats() redis.Stats
}) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- feed.Run(ctx) }()
	for !feed.Stats().Connected {
		time.Sleep(time.Millisecond)
	}
	return func() { cancel(); <-ended }
}

// openPage opens a stream for user 42 and returns the data of its events. end ends all streams.
func openPage(users *hub.Hub, streams *sse.Handler) (events <-chan string, end func()) {
	web := httptest.NewServer(streams)
	response, err := http.Get(web.URL + "/?user=42")
	if err != nil {
		log.Fatal(err)
	}
	lines, list := bufio.NewScanner(response.Body), make(chan string, 10)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "id: ") { // the stream is open
	}
	go func() {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				list <- data
			}
		}
	}()
	return list, func() {
		users.Refuse()
		users.Finish(hub.ReasonDrain, 0)
		users.Close()
		streams.Wait()
		response.Body.Close()
		web.Close()
		http.DefaultClient.CloseIdleConnections()
	}
}
