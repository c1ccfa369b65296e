package redis

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

func TestMain(m *testing.M) {
	DisableClientLog()
	// Most tests wait for Redis. The command line takes precedence.
	_ = flag.Set("test.parallel", strconv.Itoa(4*runtime.GOMAXPROCS(0)))
	goleak.VerifyTestMain(m)
}

// patience bounds waiting for something that will come. It is long because it
// only matters to a test that fails.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in vain waited until %s", what)
		}
	}
}

func parse(t *testing.T, url string, opts ServerOptions) *Server {
	t.Helper()
	s, err := ParseServer(url, opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A subscriber is a running PubSub and all that it has handed over. Users whose name begins with
// "nobody" have no streams.
type subscriber struct {
	*PubSub
	log  *logbook
	stop func() // ends Run and waits for it

	mu          sync.Mutex
	events      []string // "user/topic/payload", "generation", "too large user/topic"
	generations int

	// For tests that replace it; called before the event is added.
	onPublish func(payload string)
	onGap     func()
}

func (h *subscriber) Publish(user, topic, payload string) int {
	if h.onPublish != nil {
		h.onPublish(payload)
	}
	if strings.HasPrefix(user, "nobody") || strings.HasPrefix(user, "usercast-check-") {
		return 0
	}
	h.add(user + "/" + topic + "/" + payload)
	return 1
}

func (h *subscriber) GapFor(user, topic string, reason hub.Gap) {
	if reason == hub.GapTooLarge {
		h.add("too large " + user + "/" + topic)
	}
}

func (h *subscriber) GapForAll(reason hub.Gap) {
	if h.onGap != nil {
		h.onGap()
	}
	if reason == hub.GapRedisReconnect {
		h.generations++
		h.add(fmt.Sprint("generation ", h.generations))
	}
}

func (h *subscriber) Disconnect(user string) int {
	h.add("disconnect " + user)
	return 1
}

// start runs a PubSub until the test ends. Change may adjust the configuration.
func start(t *testing.T, server *Server, change func(*PubSubConfig)) *subscriber {
	t.Helper()
	return startSubscriber(t, server, &subscriber{}, change)
}

func startSubscriber(t *testing.T, server *Server, h *subscriber, change func(*PubSubConfig)) *subscriber {
	t.Helper()
	h.log = &logbook{}
	cfg := PubSubConfig{
		Server:     server,
		Hub:        h,
		Logger:     slog.New(h.log),
		BackoffMax: 200 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.PubSub, err = NewPubSub(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := h.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	h.stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("Run did not return after its context ended")
		}
	}
	t.Cleanup(func() {
		h.stop()
		if t.Failed() {
			t.Logf("events: %q\nlog:\n%s", h.seen(), h.log)
		}
	})
	return h
}

func (h *subscriber) add(event string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.events = append(h.events, event)
}

func (h *subscriber) seen() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.events)
}

func (h *subscriber) awaitEvent(t *testing.T, event string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%q came", event), func() bool { return slices.Contains(h.seen(), event) })
}

func (h *subscriber) awaitGeneration(t *testing.T, n uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("generation %d stood", n), func() bool {
		s := h.Stats()
		return s.Generation >= n && s.Connected
	})
}

// awaitDelivery publishes on server, where one subscriber must hear it, and waits
// until it has come.
func (h *subscriber) awaitDelivery(t *testing.T, server *redistest.Server, payload string) {
	t.Helper()
	if n := server.Do("publish", "user-42:activity", payload); n != int64(1) {
		t.Fatalf("published to %v subscribers, want 1", n)
	}
	h.awaitEvent(t, "42/activity/"+payload)
}

// conserved waits until the counters add up, and returns them. A message is
// counted as routed after it was handed over.
func (h *subscriber) conserved(t *testing.T) (s Stats) {
	t.Helper()
	eventually(t, "the counters added up", func() bool {
		s = h.Stats()
		return s.Received == s.Routed+s.Unrouted+s.Malformed+s.TooLarge
	})
	return s
}

// connections are the lines of CLIENT LIST that bear our name.
func connections(server *redistest.Server) []string {
	var ours []string
	for line := range strings.Lines(server.Do("client", "list").(string)) {
		if strings.Contains(line, " name="+topology.ClientName+" ") {
			ours = append(ours, line)
		}
	}
	return ours
}

// logbook is a slog.Handler that keeps "LEVEL message key=value …" lines.
type logbook struct {
	attrs string

	mu    sync.Mutex
	lines []string
	root  *logbook
}

func (l *logbook) Enabled(context.Context, slog.Level) bool { return true }
func (l *logbook) WithGroup(string) slog.Handler            { panic("unused") }
func (l *logbook) WithAttrs(attrs []slog.Attr) slog.Handler {
	child := &logbook{attrs: l.attrs, root: l}
	for _, a := range attrs {
		child.attrs += " " + a.String()
	}
	return child
}

func (l *logbook) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message + l.attrs
	r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
	if l.root != nil {
		l = l.root
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

func (l *logbook) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

func (l *logbook) String() string { return strings.Join(l.all(), "\n") }

// count is how many lines hold all of the parts.
func (l *logbook) count(parts ...string) int {
	n := 0
	for _, line := range l.all() {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			n++
		}
	}
	return n
}

func (l *logbook) await(t *testing.T, parts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("the log said %q", parts), func() bool { return l.count(parts...) > 0 })
}

// once checks that exactly one line holds all of the parts.
func (l *logbook) once(t *testing.T, parts ...string) {
	t.Helper()
	if n := l.count(parts...); n != 1 {
		t.Errorf("the log says %q %d times, want once", parts, n)
	}
}

// warnings checks how many warnings there are in all.
func (l *logbook) warnings(t *testing.T, want int) {
	t.Helper()
	if n := l.count("WARN "); n != want {
		t.Errorf("the log holds %d warnings, want %d", n, want)
	}
}

// silentOn checks that nothing in the log holds the secret.
func (l *logbook) silentOn(t *testing.T, secret string) {
	t.Helper()
	if l.count(secret) > 0 {
		t.Errorf("the log holds %q", secret)
	}
}

// callsOf is how often a command was called, refusals included.
func callsOf(t *testing.T, server *redistest.Server, command string) int {
	t.Helper()
	stats := topology.InfoField(server.Do("info", "commandstats").(string), "cmdstat_"+command)
	calls := 0
	for field := range strings.SplitSeq(stats, ",") {
		name, value, _ := strings.Cut(field, "=")
		if name == "calls" || name == "rejected_calls" {
			n, err := strconv.Atoi(value)
			if err != nil {
				t.Fatalf("INFO commandstats says %q", stats)
			}
			calls += n
		}
	}
	return calls
}

// probes is how many probes have come back.
func probes(h *subscriber) uint64 { return h.Stats().Probe.Count }
