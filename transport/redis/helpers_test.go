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
	// Most tests spend their time waiting for Redis. A flag on the command line takes precedence.
	_ = flag.Set("test.parallel", strconv.Itoa(6*runtime.GOMAXPROCS(0)))
	goleak.VerifyTestMain(m)
}

// patience is the timeout for expected events. It is long because it only matters if a test fails.
const patience = 20 * time.Second

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for start := time.Now(); !done(); time.Sleep(min(max(time.Since(start)/8, 2*time.Millisecond), 20*time.Millisecond)) {
		if time.Since(start) > patience {
			t.Fatalf("timed out waiting until %s", what)
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

// A subscriber is a running PubSub with the events that it has delivered. Users whose name begins with "nobody" do not
// have streams.
type subscriber struct {
	*PubSub
	places
	log  *logbook
	stop func() // ends Run and waits for it

	mu          sync.Mutex
	events      []string // "user/topic/payload", "generation", "too large user/topic"
	generations int

	// Set by some tests; called before the event is added.
	onPublish func(payload string)
	onBegin   func()
}

func (h *subscriber) Publish(to hub.Recipient, topic, payload string) int {
	user := nameOf(to)
	if h.onPublish != nil {
		h.onPublish(payload)
	}
	if strings.HasPrefix(user, "nobody") || strings.HasPrefix(user, "usercastcheck") {
		return 0
	}
	h.add(user + "/" + topic + "/" + payload)
	return 1
}

func (h *subscriber) GapFor(to hub.Recipient, topic string, reason hub.Gap) {
	if reason == hub.GapTooLarge {
		h.add("too large " + nameOf(to) + "/" + topic)
	}
}

// nameOf returns the name of a recipient, with a word before that of a group.
func nameOf(to hub.Recipient) string {
	if to.Group {
		return "group " + to.Name
	}
	return to.Name
}

func (h *subscriber) Skip() { h.add("skip") }

func (h *subscriber) Begin() {
	if h.onBegin != nil {
		h.onBegin()
	}
	h.generations++
	h.add(fmt.Sprint("generation ", h.generations))
}

func (h *subscriber) Disconnect(user string) int {
	h.add("disconnect " + user)
	return 1
}

// places records the calls of a feed about ids. Clients do not wait for their places.
type places struct {
	mu    sync.Mutex
	calls []string
}

func (p *places) record(call string, name hub.MarkerName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, call)
	if call == "mark" {
		p.calls[len(p.calls)-1] += " " + name.String()
	}
}

func (p *places) Mark(name hub.MarkerName)  { p.record("mark", name) }
func (p *places) Miss(name hub.MarkerName)  { p.record("miss", name) }
func (p *places) Settle()                   { p.record("settle", hub.MarkerName{}) }
func (p *places) Doubt(name hub.MarkerName) { p.record("doubt", name) }
func (p *places) AwaitPlaces(func())        {}
func (p *places) Waiting() uint64           { return 0 }
func (p *places) Received(uint64) bool      { return false }
func (p *places) Confirmed(uint64)          {}

// count returns how many calls begin with a word.
func (p *places) count(word string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, call := range p.calls {
		if strings.HasPrefix(call, word) {
			n++
		}
	}
	return n
}

// start runs a PubSub until the test ends. change, if not nil, adjusts the configuration.
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
	eventually(t, fmt.Sprintf("%q was received", event), func() bool { return slices.Contains(h.seen(), event) })
}

func (h *subscriber) awaitGeneration(t *testing.T, n uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("generation %d was subscribed", n), func() bool {
		s := h.Stats()
		return s.Generation >= n && s.Connected
	})
}

// awaitDelivery publishes on server, which must have one subscriber, and waits until the message is received.
func (h *subscriber) awaitDelivery(t *testing.T, server *redistest.Server, payload string) {
	t.Helper()
	if n := server.Do("publish", "user-42:activity", payload); n != int64(1) {
		t.Fatalf("published to %v subscribers, want 1", n)
	}
	h.awaitEvent(t, "42/activity/"+payload)
}

// conserved waits until the counters add up, and returns them. A message is counted as routed after it was passed to
// the hub.
func (h *subscriber) conserved(t *testing.T) (s Stats) {
	t.Helper()
	eventually(t, "the counters added up", func() bool {
		s = h.Stats()
		return s.Received == s.Routed+s.Unrouted+s.Malformed+s.TooLarge
	})
	return s
}

// connections returns the lines of CLIENT LIST with the name of a hub's connection.
func connections(server *redistest.Server) []string {
	var ours []string
	for line := range strings.Lines(server.Do("client", "list").(string)) {
		if strings.Contains(line, " name="+topology.ClientName+" ") {
			ours = append(ours, line)
		}
	}
	return ours
}

// logbook is a slog.Handler that keeps lines such as "LEVEL message key=value key=value".
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

// count returns how many lines contain all parts.
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
	eventually(t, fmt.Sprintf("the log contains %q", parts), func() bool { return l.count(parts...) > 0 })
}

// once checks that exactly one line contains all parts.
func (l *logbook) once(t *testing.T, parts ...string) {
	t.Helper()
	if n := l.count(parts...); n != 1 {
		t.Errorf("the log contains %q %d times, want once", parts, n)
	}
}

// warnings checks the total number of warnings.
func (l *logbook) warnings(t *testing.T, want int) {
	t.Helper()
	if n := l.count("WARN "); n != want {
		t.Errorf("the log contains %d warnings, want %d", n, want)
	}
}

// mustNotContain checks that the log does not contain the secret.
func (l *logbook) mustNotContain(t *testing.T, secret string) {
	t.Helper()
	if l.count(secret) > 0 {
		t.Errorf("the log contains %q", secret)
	}
}

// callsOf returns how often a command was called, including rejected calls.
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

// probes returns how many probes were received.
func probes(h *subscriber) uint64 { return h.Stats().Probe.Count }
