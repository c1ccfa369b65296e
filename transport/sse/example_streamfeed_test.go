package sse_test

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// The same with messages that are entries of a Redis stream: a client that reconnects, at this hub or at another one, receives
// what it missed.
func Example_streamFeed() {
	store := miniredis.NewMiniRedis() // stands for a real one
	if err := store.Start(); err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	server, err := redis.ParseServer("redis://"+store.Addr(), redis.ServerOptions{})
	if err != nil {
		log.Fatal(err)
	}

	// The hub asks the feed for entries that it does not hold any more, so each knows the other.
	var feed *redis.StreamFeed
	users := hub.NewStreamFeed(hub.Config{Encode: sse.EncodeEntry, BroadcastUser: "*"}, func(q *hub.Query) { feed.Query(q) })
	streams := sse.New(sse.Config{Hub: users.Hub, Authenticate: auth.Insecure}) // use your own authentication
	feed, err = redis.NewStreamFeed(redis.StreamConfig{Server: server, Hub: users, Streams: streams})
	if err != nil {
		log.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, stopFeed := context.WithCancel(context.Background())
	running.Go(func() { feed.Run(ctx) })
	public, err := sse.NewServer(context.Background(), sse.ServerConfig{Address: "127.0.0.1:0", Streams: streams})
	if err != nil {
		log.Fatal(err)
	}
	running.Go(func() { _ = public.Serve() })

	for !feed.Stats().Connected {
		time.Sleep(time.Millisecond)
	}
	page := openPage("http://"+public.Addr().String()+"/events?user=42", "")
	if _, err := store.XAdd("usercast:log", "*", []string{"ch", "user-42", "data", "hello"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-page)

	users.Refuse()
	users.Finish(hub.ReasonDrain, 0)
	users.Close()
	_ = public.Shutdown(context.Background())
	stopFeed()
	running.Wait()

	// Output:
	// hello
}
