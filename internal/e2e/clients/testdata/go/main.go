// Command goclients opens a stream with one of three Go libraries. It prints one JSON line for
// each event that the library passes to its callback. It runs until it is killed.
//
//	goclients LIBRARY URL
package main

import (
	"context"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/launchdarkly/eventsource"
	r3labs "github.com/r3labs/sse/v2"
	"github.com/tmaxmax/go-sse"
	"gopkg.in/cenkalti/backoff.v1"
)

// maxEvent is above the largest event that the hub sends by default. Two of the libraries
// accept only 64 KiB by default.
const maxEvent = 4 << 20

func main() {
	library, url := os.Args[1], os.Args[2]
	switch library {
	case "launchdarkly":
		runLaunchDarkly(url)
	case "tmaxmax":
		runTmaxmax(url)
	case "r3labs":
		runR3labs(url)
	default:
		log.Fatalf("unknown library %q", library)
	}
}

func runLaunchDarkly(url string) {
	stream, err := eventsource.SubscribeWithURL(url,
		eventsource.StreamOptionCanRetryFirstConnection(-1),
		eventsource.StreamOptionErrorHandler(func(err error) eventsource.StreamErrorHandlerResult {
			log.Print(err)
			return eventsource.StreamErrorHandlerResult{}
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	for event := range stream.Events {
		print(event.Event(), event.Data())
	}
}

func runTmaxmax(url string) {
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		log.Fatal(err)
	}
	conn := sse.NewConnection(request)
	conn.Buffer(nil, maxEvent)
	conn.SubscribeToAll(func(event sse.Event) { print(event.Type, event.Data) })
	for { // Connect returns at any status but 200. The Connection keeps the last id.
		log.Print(conn.Connect())
		time.Sleep(time.Second)
	}
}

func runR3labs(url string) {
	client := r3labs.NewClient(url, r3labs.ClientMaxBufferSize(maxEvent))
	retry := backoff.NewExponentialBackOff()
	retry.MaxElapsedTime = 0 // otherwise it gives up after 15 minutes of retries in all
	client.ReconnectStrategy = retry
	for { // SubscribeRaw returns when the hub ends a stream. The Client keeps the last id.
		log.Print(client.SubscribeRaw(func(event *r3labs.Event) { print(string(event.Event), string(event.Data)) }))
		time.Sleep(time.Second)
	}
}

func print(name, data string) {
	line, err := json.Marshal(map[string]string{"type": name, "data": data})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := os.Stdout.Write(append(line, '\n')); err != nil {
		log.Fatal(err)
	}
}
