package grafana

import (
	"bufio"
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
	"usercast/metrics"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

// maxPayload is small, so that it is easily exceeded.
const maxPayload = 1000

// A testHub is a hub on a real Redis, with pages to which things happen for as long
// as the test runs.
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
		Hub: users.Stats, Streams: streams.Stats, Feeds: func() []redis.Stats { return []redis.Stats{feed.Stats()} }, Version: "v0.0.0",
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

// live lets pages come, go and be refused, and messages of all kinds arrive, until
// ctx is done.
func (h *testHub) live(ctx context.Context) {
	for last := ""; ctx.Err() == nil; {
		page := h.open("user=42", last)
		for page.answer.StatusCode != http.StatusOK { // the page before it has not left yet
			page.close()
			page = h.open("user=42", last)
		}
		for _, message := range [][2]string{
			{"user-42:activity", "hello"}, {"user-7", "for nobody"}, {"user-", "malformed"}, {"user-42", strings.Repeat("x", maxPayload+1)},
			{"usercast:user-control", "not an order"}, {"user-42", "the last"},
		} {
			h.redis.Do("PUBLISH", message[0], message[1])
		}
		last = page.readTo("data: the last")
		h.open("user=42", "").close() // one too many
		h.open("", "").close()        // not logged in
		page.close()
		h.redis.Do("PUBLISH", "user-42", "missed") // and replayed
		h.open("user=8", "elsewhere-1").close()    // an id of another hub
	}
}

// A page is a stream as a browser reads it.
type page struct {
	t      *testing.T
	answer *http.Response
	lines  *bufio.Scanner
}

func (h *testHub) open(query, lastID string) *page {
	request, _ := http.NewRequest(http.MethodGet, h.server.URL+"/events?"+query, nil)
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	answer, err := h.server.Client().Do(request)
	if err != nil {
		h.t.Error(err)
		runtime.Goexit()
	}
	return &page{h.t, answer, bufio.NewScanner(answer.Body)}
}

// readTo reads up to a line and returns the id of its event.
func (p *page) readTo(line string) (id string) {
	for p.lines.Scan() {
		if after, found := strings.CutPrefix(p.lines.Text(), "id: "); found {
			id = after
		}
		if p.lines.Text() == line {
			return id
		}
	}
	p.t.Errorf("the stream ended before %q: %v", line, p.lines.Err())
	return ""
}

func (p *page) close() { p.answer.Body.Close() }
