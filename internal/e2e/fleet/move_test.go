package fleet

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"usercast/internal/haproxytest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// Three hubs run behind HAProxy, without session affinity, with plain PUBLISH. Hubs are killed, drained, frozen and
// started, their connections to Redis are cut, and pages move between the hubs, with other groups each time: each page
// receives every message once and in order, or a gap that is justified. A page that begins with a position of another hub
// is complete from then on. Presence in Redis agrees with the pages.
func TestPagesMoveBetweenHubsWithoutLossOrGap(t *testing.T) {
	if testing.Short() {
		t.Skip("opens hundreds of streams")
	}
	t.Parallel() // it mostly waits
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	move(t, rand.New(rand.NewPCG(seed, 0)), 400, 15*time.Second)
}

// A moveWorld is one Redis, three hubs, a proxy, the app and the pages of its users.
type moveWorld struct {
	t        *testing.T
	random   *rand.Rand // of the faults
	redis    *redistest.Server
	hubs     []*moveHub
	proxy    *haproxytest.Proxy
	observer *observer
	ctx      context.Context // ends with the test
	complete atomic.Int32    // pages that have an id
	presence *presenceWatch
	users    []string      // of the pages
	groups   int           // besides everyone
	ended    chan struct{} // closed when pages do not move any more

	mu     sync.Mutex
	sent   []message      // guarded by mu: the number of a message is its index
	faults map[string]int // guarded by mu
	events map[string]int // guarded by mu: of pages
	wrong  []string       // guarded by mu
	done   bool           // guarded by mu: all messages were sent
}

// A moveHub is a hub with its own connection to Redis.
type moveHub struct {
	name  string
	relay *redistest.Relay
	*hubtest.Instance
}

// move runs the pages and causes faults for a time. Afterwards, every page must be complete.
func move(t *testing.T, random *rand.Rand, pages int, length time.Duration) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &moveWorld{
		t: t, random: random, redis: redistest.Start(t), ctx: ctx, ended: make(chan struct{}), groups: pages / 2,
		faults: make(map[string]int), events: make(map[string]int),
	}
	for i := range pages {
		user := strconv.Itoa(i % (pages / 4))
		if isLone(i) {
			user = fmt.Sprint("lone-", i)
		}
		w.users = append(w.users, user)
	}
	w.observer = observe(t, w.redis.Addr())
	w.presence = watchPresence(t, w.redis.Addr(), w.violation)
	addrs := make(map[string]string)
	for _, name := range []string{"a", "b", "c"} {
		h := &moveHub{name: name, relay: redistest.StartRelay(t, w.redis.Addr())}
		h.Instance = hubtest.NewInstance(t, w.redis, "--name", name, "--retry", "200ms", "--ping-interval", "5s", "--drain-delay", "1s", "--drain", "1s",
			"--history-per-user", "100000", "--history-bytes", "256MiB", "--queue", "64", "--send-buffer", "16KiB", "--log-level", "error",
			"--group-prefix", "group-", "--presence")
		h.URL = h.relay.URL()
		h.Start(t)
		w.hubs = append(w.hubs, h)
		addrs[name] = h.Public
	}
	w.proxy = haproxytest.Start(t, haproxytest.Config{
		Defaults: documented(t, "## HAProxy", "    defaults"),
		Backend:  documentedBackend(t, addrs),
		MaxConn:  pages + 100,
	})
	for _, h := range w.hubs {
		w.proxy.AwaitUp(h.name)
	}

	var all []*movePage
	var reading, publishing sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	for i := range pages {
		p := newMovePage(w, i, rand.New(rand.NewPCG(random.Uint64(), 0)))
		all = append(all, p)
		reading.Go(p.run)
	}
	hubtest.Eventually(t, "all pages have opened a stream", func() bool { return w.complete.Load() == int32(pages) || w.failed() })
	stop := make(chan struct{})
	client := newRedisClient(w.redis.Addr())
	defer client.Close()
	ofApp := rand.New(rand.NewPCG(random.Uint64(), 0))
	publishing.Go(func() { w.publish(client, ofApp, stop) })

	for end := time.Now().Add(length); time.Now().Before(end) && !w.failed(); {
		w.fault()
		time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
	}
	close(w.ended)
	for _, h := range w.hubs {
		w.proxy.AwaitUp(h.name)
	}
	close(stop)
	publishing.Wait()
	read := make(chan struct{})
	go func() { reading.Wait(); close(read) }()
	select {
	case <-read:
	case <-time.After(hubtest.Patience):
	}
	cancel()
	reading.Wait()
	for _, p := range all {
		p.finish()
	}
	if length > time.Minute { // otherwise the test would mostly wait
		w.presence.awaitOffline(t)
	}
	t.Log(w.presence.finish())
	w.report()
}

// isEnding reports whether pages do not move any more.
func (w *moveWorld) isEnding() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

func (w *moveWorld) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.wrong) > 0
}

func (w *moveWorld) violation(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

func (w *moveWorld) count(event string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events[event]++
}

// size returns the number of the next message. done reports whether all messages were sent.
func (w *moveWorld) size() (next int, done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.sent), w.done
}

// message returns a message that was sent.
func (w *moveWorld) message(number int) (message, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if number < 0 || number >= len(w.sent) {
		return message{}, false
	}
	return w.sent[number], true
}

// between returns the messages with numbers from first to before last.
func (w *moveWorld) between(first, last int) []message {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sent[first:max(first, last)] // messages are only appended
}

// fault causes a fault of one hub.
func (w *moveWorld) fault() {
	h := w.hubs[w.random.IntN(len(w.hubs))]
	faults := map[string]func(){
		"drain": func() {
			if code := h.Stop(w.t, syscall.SIGTERM); code != 0 {
				w.violation("hub %s: exit status %d", h.name, code)
			}
			h.Start(w.t)
		},
		"kill": func() {
			h.Stop(w.t, syscall.SIGKILL)
			time.Sleep(time.Duration(w.random.IntN(2000)) * time.Millisecond)
			h.Start(w.t)
		},
		"freeze": func() {
			h.Program.Signal(syscall.SIGSTOP)
			time.Sleep(time.Duration(200+w.random.IntN(5000)) * time.Millisecond)
			h.Program.Signal(syscall.SIGCONT)
		},
		"cut": func() {
			h.relay.Disconnect()
		},
	}
	names := slices.Sorted(maps.Keys(faults))
	name := names[w.random.IntN(len(names))]
	w.mu.Lock()
	w.faults[name]++
	w.mu.Unlock()
	faults[name]()
}

// report fails the test if there were violations, and logs the totals.
func (w *moveWorld) report() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Logf("%d messages; faults: %v; pages: %v", len(w.sent), w.faults, w.events)
	for _, wrong := range w.wrong[:min(len(w.wrong), 20)] {
		w.t.Error(wrong)
	}
	if n := len(w.wrong); n > 20 {
		w.t.Errorf("%d violations in total", n)
	}
}
