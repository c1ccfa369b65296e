package sse_test

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"

	"usercast/auth"
	"usercast/hub"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// The example runs the hub inside an app with its own authentication, from Redis to the streams to
// the shutdown. docs/embedding.md explains it step by step.
func Example() {
	store := miniredis.NewMiniRedis() // in an app: a real Redis
	if err := store.Start(); err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	// 1. The hub routes messages to users' streams.
	users := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry, BroadcastUser: "*"})

	// 2. The handler turns a request into a stream.
	streams := sse.New(sse.Config{
		Hub: users.Hub,
		Authenticate: func(r *http.Request) (auth.Identity, error) {
			session, err := r.Cookie("session")
			if err != nil {
				return auth.Identity{}, auth.ErrUnauthorized
			}
			return auth.Identity{User: session.Value}, nil // in an app: look up the session
		},
	})

	// 3. The feed receives messages from Redis.
	server, err := redis.ParseServer("redis://"+store.Addr(), redis.ServerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	feed, err := redis.NewPubSub(redis.PubSubConfig{Server: server, Hub: users, Streams: streams})
	if err != nil {
		log.Fatal(err)
	}
	var running sync.WaitGroup
	feedCtx, stopFeed := context.WithCancel(context.Background())
	running.Go(func() { feed.Run(feedCtx) })

	// 4. The server serves both the app's own routes and the streams. It sets the socket options and
	// deadlines that streams need: see sse.Server.
	app := http.NewServeMux()
	app.Handle("/events", streams) // with echo: app.Any("/events", echosse.Handler(streams))
	public, err := sse.NewServer(context.Background(), sse.ServerConfig{
		Address: "127.0.0.1:0", Streams: streams, Path: "/events", Handler: app,
	})
	if err != nil {
		log.Fatal(err)
	}
	running.Go(func() { _ = public.Serve() }) // ends with Shutdown

	// A page of user 42 opens a stream, and a part of the app publishes a message.
	for !feed.Stats().Connected {
		time.Sleep(time.Millisecond)
	}
	page := openPage("http://"+public.Addr().String()+"/events", "42")
	store.Publish("user-42:activity", `{"kind":"comment","id":7}`)
	fmt.Println(<-page)

	// 5. Shutdown: reject new streams and end the open ones, spread over a few seconds if there are
	// many. Shutdown waits for them. The feed ends last.
	users.Refuse()
	users.Finish(hub.ReasonDrain, 0)
	users.Close()
	_ = public.Shutdown(context.Background())
	stopFeed()
	running.Wait()
	fmt.Println(<-page)

	// Output:
	// {"kind":"comment","id":7}
	// {"reason":"draining"}
}

// openPage opens a stream as an EventSource does, and returns the data of its events. A stream is
// complete from its first id on.
func openPage(url, session string) <-chan string {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	request.AddCookie(&http.Cookie{Name: "session", Value: session})
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	lines, events := bufio.NewScanner(response.Body), make(chan string, 10)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "id: ") {
	}
	go func() {
		defer response.Body.Close()
		defer close(events)
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				events <- data
			}
		}
	}()
	return events
}
