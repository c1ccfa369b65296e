package grafana

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
	"usercast/metrics"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// maxPayload is small, so that the test can exceed it cheaply.
const maxPayload = 1000

// A testHub is a hub on a real Redis server.
type testHub struct {
	t       *testing.T
	redis   *redistest.Server
	server  *httptest.Server
	metrics string // host:port, for Prometheus
}

func startHub(t *testing.T) *testHub {
	t.Helper()
	server := redistest.Start(t)
	address, err := redis.ParseServer(server.URL(), redis.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	users := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry, BroadcastUser: "*", MaxClientsPerUser: 1})
	streams := sse.New(sse.Config{
		Hub: users.Hub, Authenticate: auth.Insecure, PingInterval: time.Second, WriteTimeout: 10 * time.Second, Retry: time.Second,
	})
	feed, err := redis.NewPubSub(redis.PubSubConfig{
		Server: address, Hub: users, MaxPayload: maxPayload, ProbeEvery: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	registry := metrics.NewRegistry(metrics.Sources{
		Hub: users.Stats, Streams: streams.Stats, Feeds: func() []redis.Stats { return []redis.Stats{feed.Stats()} }, Online: func() (int, bool) { return 1, true }, Version: "v0.0.0",
	})
	mux := http.NewServeMux()
	mux.Handle("/events", streams)
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	h := &testHub{t: t, redis: server, server: httptest.NewUnstartedServer(mux)}
	h.server.Start()
	h.metrics = h.server.Listener.Addr().String()

	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { feed.Run(ctx) })
	t.Cleanup(func() {
		users.Refuse()
		users.Finish(hub.ReasonDrain, 0)
		streams.Wait()
		stop()
		running.Wait()
		users.Close()
		h.server.Close()
	})
	server.Await("the hub has subscribed", func() bool { return feed.Stats().Connected })
	return h
}

// generateTraffic lets clients connect, disconnect and be rejected, and messages of all kinds arrive, until ctx is done.
func (h *testHub) generateTraffic(ctx context.Context) {
	for last := ""; ctx.Err() == nil; {
		s := h.request("user=42", last)
		for e, _, _ := s.Block(); e.Type == "busy"; e, _, _ = s.Block() { // the previous stream has not ended yet
			s.Close()
			s = h.request("user=42", last)
		}
		for _, message := range [][2]string{
			{"user-42:activity", "hello"}, {"user-7", "for no client"}, {"user-", "malformed"}, {"user-42", strings.Repeat("x", maxPayload+1)},
			{"usercast:user-control", "not a command"}, {"user-42", "the last"},
		} {
			h.redis.Do("PUBLISH", message[0], message[1])
		}
		for e, err := s.Next(); e.Data != "the last"; e, err = s.Next() {
			if err != nil {
				h.t.Errorf("the stream ended before the last message: %v", err)
				return
			}
		}
		last = s.LastID
		h.request("user=42", "").Close() // above the limit per user
		h.request("", "").Close()        // without authentication
		s.Close()
		h.redis.Do("PUBLISH", "user-42", "missed") // and replayed
		h.request("user=8", "elsewhere-1").Close() // an id of another hub
	}
}

// request opens a stream and reads the response header.
func (h *testHub) request(query, lastID string) *ssetest.Stream {
	s, err := ssetest.Request(h.metrics, query, "Last-Event-ID: "+lastID)
	if err != nil {
		h.t.Error(err)
		runtime.Goexit()
	}
	return s
}
