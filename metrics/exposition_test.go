package metrics_test

import (
	"flag"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.uber.org/goleak"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/histogram"
	"usercast/metrics"
	"usercast/transport/redis"
	"usercast/transport/sse"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A scrape right after the start contains every metric and every label value, so that rate() starts
// from zero.
func TestAllMetricsAreExportedFromTheStart(t *testing.T) {
	golden(t, "start.prom", atStart(t))
}

// As long as the number of users who are online is not known, no number is shown.
func TestUnknownNumberOfOnlineUsersIsOmitted(t *testing.T) {
	sources := busy()
	sources.Online = func() (int, bool) { return 0, false }
	if text := scrape(t, metrics.NewRegistry(sources)); strings.Contains(text, "online_users") {
		t.Errorf("a scrape contains online_users:\n%s", text)
	}
	if n := sources.Snapshot().OnlineUsers; n != nil {
		t.Errorf("the snapshot contains %d", *n)
	}
}

// Each statistic has a different value, so that a swapped pair would be noticed.
func TestEachMetricHasItsOwnValue(t *testing.T) {
	golden(t, "busy.prom", busy())
}

// These are the rules of `promtool check metrics`.
func TestExpositionIsLintFree(t *testing.T) {
	for name, sources := range map[string]metrics.Sources{"start": atStart(t), "busy": busy()} {
		problems, err := promlint.New(strings.NewReader(scrape(t, metrics.NewRegistry(sources)))).Lint()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s: %s", name, p.Metric, p.Text)
		}
	}
}

func TestRegistryHasRuntimeAndProcess(t *testing.T) {
	text := scrape(t, metrics.NewRegistry(atStart(t)))
	for _, name := range []string{"usercast_clients ", "go_goroutines ", "process_open_fds "} {
		if name == "process_open_fds " && runtime.GOOS != "linux" {
			continue
		}
		if !strings.Contains(text, "\n"+name) {
			t.Errorf("a scrape lacks %s", name)
		}
	}
}

// atStart returns the real Stats of a new hub.
func atStart(t *testing.T) metrics.Sources {
	t.Helper()
	h := hub.NewPubSub(hub.Config{Encode: sse.EncodeEntry})
	server, err := redis.ParseServer("redis://127.0.0.1:6379", redis.ServerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	feed, err := redis.NewPubSub(redis.PubSubConfig{Server: server, Hub: h})
	if err != nil {
		t.Fatal(err)
	}
	streams := sse.New(sse.Config{Hub: h.Hub, Authenticate: auth.Insecure})
	stats := func() hub.Stats {
		s := h.Stats()
		// Both grow with the age of the hub.
		s.HistoryHere, s.HistoryElsewhere = s.HistoryHere.Truncate(time.Hour), s.HistoryElsewhere.Truncate(time.Hour)
		return s
	}
	return metrics.Sources{Hub: stats, Streams: streams.Stats, Feeds: func() []redis.Stats { return []redis.Stats{feed.Stats()} }, Version: "v0.0.0"}
}

// busy returns invented Stats.
func busy() metrics.Sources {
	n := 100
	next := func() uint64 { n++; return uint64(n) }
	h := hub.Stats{
		Clients: 1, Users: 2, Groups: 5, Connects: next(),
		Disconnects:    map[hub.Reason]uint64{},
		FramesEnqueued: next(), Replayed: next(), HistoryEntries: int(next()), HistoryBytes: int64(next()), FramesQueued: int64(next()), Deliveries: next(), DeliveryBytes: next(),
		FramesDiscarded: map[hub.Reason]uint64{},
		Gaps:            map[hub.Gap]uint64{},
		Resumes:         map[hub.Origin]uint64{},
		HistoryHere:     90 * time.Second, HistoryElsewhere: 25500 * time.Millisecond,
	}
	for _, c := range hub.Reasons() {
		h.Disconnects[c], h.FramesDiscarded[c] = next(), next()
	}
	for _, g := range hub.Gaps() {
		h.Gaps[g] = next()
	}
	for _, o := range hub.Origins() {
		h.Resumes[o] = 1000 + uint64(o)
	}
	streams := sse.Stats{
		Rejects:  sse.New(sse.Config{Hub: hub.NewPubSub(hub.Config{}).Hub, Authenticate: auth.Insecure}).Stats().Rejects, // for its keys
		Held:     3,
		Delivery: histogram.Snapshot{Count: 7, SumSeconds: 0.5, Cumulative: map[float64]uint64{0.001: 3, 1: 6}},
		Auth:     histogram.Snapshot{Count: 8, SumSeconds: 0.25, Cumulative: map[float64]uint64{0.001: 4, 1: 5}},
	}
	for _, reason := range []string{
		"clients", "user-limit", "draining", "auth-unavailable", "unauthorized", "origin", "topic", "bad-user", "bad-request",
	} {
		streams.Rejects[reason] = next()
	}
	streams.Rejects["unknown-key"] = 9
	feed := redis.Stats{
		Feed: "pubsub", Redis: "redis.example:6379",
		Received: next(), Routed: next(), Unrouted: next(), Malformed: next(), TooLarge: next(),
		ControlReceived: next(), ControlMalformed: next(),
		Connected: true, Generation: 3, Reconnects: 2,
		Probe: histogram.Snapshot{Count: 9, SumSeconds: 0.125, Cumulative: map[float64]uint64{0.001: 5, 0.01: 5}},
		Hubs:  []redis.Hub{{Name: "a", Self: true}, {Name: "b"}, {Name: "c", OtherServer: true}, {Name: "d", OtherPatterns: true}, {Name: "e"}}, Mismatches: 17,
	}
	other := feed
	other.Redis, other.Received, other.Connected, other.Hubs, other.Mismatches = "other.example:6379", next(), false, nil, 2
	checks := auth.ForwardStats{Concurrency: 21, InFlight: 12, Waiting: 340}
	dropped := next()
	return metrics.Sources{
		Checks:     func() auth.ForwardStats { return checks },
		LogDropped: func() uint64 { return dropped },
		Hub:        func() hub.Stats { return h },
		Streams:    func() sse.Stats { return streams },
		Feeds:      func() []redis.Stats { return []redis.Stats{feed, other} },
		Online:     func() (int, bool) { return 31, true },
		Version:    "v1.2.3",
	}
}

// golden compares a scrape of the hub's own metrics with a file.
func golden(t *testing.T, name string, sources metrics.Sources) {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(metrics.NewCollector(sources))
	got := strings.ReplaceAll(scrape(t, registry), runtime.Version(), "go0.0.0")
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	lines := func(text string) map[string]bool {
		set := make(map[string]bool)
		for line := range strings.Lines(text) {
			set[line] = true
		}
		return set
	}
	gotLines, wantLines := lines(got), lines(string(want))
	for line := range wantLines {
		if !gotLines[line] {
			t.Errorf("missing: %s", line)
		}
	}
	for line := range gotLines {
		if !wantLines[line] {
			t.Errorf("new: %s", line)
		}
	}
	t.Errorf("the exposition differs from %s; if this is intended, run this test with -update and add it to the changelog", file)
}

// scrape sends the same request as Prometheus.
func scrape(t *testing.T, g prometheus.Gatherer) string {
	t.Helper()
	answer := httptest.NewRecorder()
	promhttp.HandlerFor(g, promhttp.HandlerOpts{}).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	if answer.Code != 200 {
		t.Fatalf("a scrape is answered with %d: %s", answer.Code, answer.Body)
	}
	return answer.Body.String()
}

func TestMissingSourcesAreZero(t *testing.T) {
	if _, err := metrics.NewRegistry(metrics.Sources{}).Gather(); err != nil {
		t.Error(err)
	}
	if got := (metrics.Sources{}).Snapshot(); got.Clients != 0 || got.Hubs != 0 || got.Feeds != nil {
		t.Errorf("a snapshot of no sources is %+v", got)
	}
}
