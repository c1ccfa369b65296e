package fleet

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// Hubs of both feeds run with random failures: each page receives every message of its user and of its groups, or a gap, and
// presence in Redis agrees with the pages. With SOAK_MINUTES, which make soak sets, more pages run for so long, and 2,000
// further pages move between three hubs behind HAProxy: see move. SOAK_SEED determines the failures and the behavior of the
// pages; the test prints it.
func TestSoak(t *testing.T) {
	if testing.Short() {
		t.Skip("runs for several seconds")
	}
	t.Parallel() // it mostly waits
	minutes, pages, seed := 0.2, 50, rand.Uint64()
	var err error
	long := os.Getenv("SOAK_MINUTES")
	if long != "" {
		pages = 160
		if minutes, err = strconv.ParseFloat(long, 64); err != nil {
			t.Fatal(err)
		}
	}
	if v := os.Getenv("SOAK_SEED"); v != "" {
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("SOAK_MINUTES=%v SOAK_SEED=%d", minutes, seed)
	length := time.Duration(minutes * float64(time.Minute))
	for i, feed := range []string{app.FeedPubSub, app.FeedStream} {
		t.Run(feed, func(t *testing.T) {
			t.Parallel()
			soak(t, feed, rand.New(rand.NewPCG(seed, uint64(i))), pages, length)
		})
	}
	if long == "" {
		return // TestPagesMoveBetweenHubsWithoutLossOrGap is the short form
	}
	t.Run("move", func(t *testing.T) {
		t.Parallel()
		move(t, rand.New(rand.NewPCG(seed, 2)), 2000, length)
	})
}

const (
	soakHubs   = 3
	soakUsers  = 40 // of the pages that are not lone
	soakLone   = 10 // pages with an own user, which sometimes stay away for a long time
	soakGroups = 60 // besides everyone
)

// A soakWorld is one Redis, several hubs, the app and the pages of its users.
type soakWorld struct {
	t    *testing.T
	feed string
	long bool // there is time for users to go offline
	// Chooses the faults; used only by the goroutine of the test.
	rng      *rand.Rand
	redis    *redistest.Server
	hubs     []*soakHub // the first is never restarted
	app      *soakApp
	pages    []*soakPage
	presence *presenceWatch

	ended  chan struct{} // closed when pages no longer stall or disconnect
	rested time.Time     // when the last message was published; set before last
	last   atomic.Int64  // number of the last message; 0: not yet published
	faults map[string]int

	mu     sync.Mutex
	wrong  []string       // guarded by mu
	counts map[string]int // guarded by mu: events of pages
}

// ending reports whether pages no longer stall or disconnect.
func (w *soakWorld) ending() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

// report records a violated guarantee.
func (w *soakWorld) report(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

func (w *soakWorld) count(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what]++
}

func soak(t *testing.T, feed string, rng *rand.Rand, pageCount int, length time.Duration) {
	w := &soakWorld{t: t, feed: feed, long: length > time.Minute, rng: rng, ended: make(chan struct{}), faults: make(map[string]int), counts: make(map[string]int)}
	w.redis = redistest.Start(t)
	if feed == app.FeedStream {
		w.redis = hubtest.DurableRedis(t)
		// If Redis is restarted while the stream is empty, hubs cannot know whether they have missed entries: feed-reset.
		w.redis.Do("xadd", app.DefaultStreamKey, "*", "ch", "user-absent", "data", "first")
	}
	w.presence = watchPresence(t, w.redis.Addr(), w.report)
	for range soakHubs {
		h := &soakHub{w, hubtest.StartInstance(t, w.redis, soakFlags(feed)...)}
		w.hubs = append(w.hubs, h)
	}
	permanent := w.hubs[0]
	before := permanent.resources()

	client := goredis.NewClient(&goredis.Options{
		Addr: w.redis.Addr(), Protocol: 2, MaxRetries: -1, DialerRetries: 1, ReadTimeout: hubtest.Patience, DisableIdentity: true,
	})
	defer client.Close()
	w.app = &soakApp{world: w, client: client, rng: rand.New(rand.NewPCG(rng.Uint64(), 1))}
	stopApp := make(chan struct{})
	var publishing, pages sync.WaitGroup
	publishing.Go(func() { w.app.run(stopApp) })
	for i := range pageCount {
		p := newSoakPage(w, i, rand.New(rand.NewPCG(rng.Uint64(), 2)))
		w.pages = append(w.pages, p)
		pages.Go(p.run)
	}

	var memory []int // of the hub that is never restarted, in KiB
	for end := time.Now().Add(length); time.Now().Before(end) && !t.Failed(); {
		w.fault()
		memory = append(memory, permanent.resources().memory)
		time.Sleep(time.Duration(500+rng.IntN(3000)) * time.Millisecond)
		w.mu.Lock()
		if len(w.wrong) > 0 {
			t.Errorf("after %v: %d violations", length-time.Until(end), len(w.wrong))
		}
		w.mu.Unlock()
	}

	// All hubs and Redis are up again, and each page must receive the last message.
	close(w.ended)
	close(stopApp)
	publishing.Wait()
	for _, h := range w.hubs {
		hubtest.Eventually(t, "the hub is connected to Redis", func() bool {
			return hubtest.Scrape(t, h.Admin).Sum("usercast_redis_connected") == 1
		})
	}
	hubtest.Eventually(t, "all pages are connected", func() bool {
		n := 0.0
		for _, h := range w.hubs {
			n += hubtest.Scrape(t, h.Admin).Sum("usercast_clients")
		}
		return n == float64(pageCount)
	})
	w.presence.awaitOnline(t)
	last := w.app.publishLast()
	w.rested = time.Now()
	w.last.Store(int64(last))
	pages.Wait()
	if feed == app.FeedStream {
		w.app.readStream()
		for _, p := range w.pages {
			p.compareWithStream()
		}
	}
	if w.long { // otherwise the test would mostly wait
		w.presence.awaitOffline(t)
	}
	t.Log(w.presence.finish())
	for _, h := range w.hubs {
		h.checkRest(h == permanent, before)
	}
	w.checkMemory(memory)
	w.summarize(length)
}

// fault injects one random failure.
func (w *soakWorld) fault() {
	restarted := w.hubs[1+w.rng.IntN(len(w.hubs)-1)]
	faults := map[string]func(){
		"redis killed": func() {
			w.presence.outage(func() {
				w.redis.Kill()
				time.Sleep(time.Duration(w.rng.IntN(2000)) * time.Millisecond)
				w.redis.Restart()
			})
		},
		"redis frozen": func() {
			w.presence.outage(func() {
				frozen := time.Duration(500+w.rng.IntN(9000)) * time.Millisecond
				if w.long && w.rng.IntN(4) == 0 {
					frozen = 35 * time.Second // longer than the lease of a user
				}
				w.redis.Freeze()
				time.Sleep(frozen)
				w.redis.Thaw()
			})
		},
		"redis connections killed": func() {
			w.presence.outage(func() {
				for _, kind := range []string{"pubsub", "normal"} {
					w.redis.Do("client", "kill", "type", kind, "skipme", "yes")
				}
			})
		},
		"hub drained": func() {
			if code := restarted.Stop(w.t, syscall.SIGTERM); code != 0 {
				w.report("a drained hub exits with status %d", code)
			}
			restarted.Start(w.t)
		},
		"hub killed": func() {
			restarted.Stop(w.t, syscall.SIGKILL)
			restarted.Start(w.t)
		},
		"pages disconnected at the same time": func() {
			for _, p := range w.pages {
				if w.rng.IntN(3) == 0 {
					p.leave(w.rng.IntN(2) == 0)
				}
			}
		},
		"user disconnected": func() {
			user := soakUser(w.rng.IntN(len(w.pages)))
			if a := hubtest.Request(w.t, "DELETE", fmt.Sprintf("http://%s/api/users/%s", restarted.Admin, user)); a.Status != 200 {
				w.report("DELETE: status %d %s", a.Status, a.Body)
			}
		},
		"malformed entries": func() {
			if w.feed == app.FeedStream {
				w.redis.Do("xadd", "usercast:log", "*", "neither", "nor")
				w.redis.Do("xadd", "usercast:log", "*", "ctl", "{")
				w.redis.Do("xadd", "usercast:log", "*", "ch", "user-", "data", "for nobody")
			} else {
				w.redis.Do("publish", "usercast:user-control", "{")
				w.redis.Do("publish", "user-", "for nobody")
			}
		},
	}
	names := slices.Sorted(maps.Keys(faults))
	name := names[w.rng.IntN(len(names))]
	w.faults[name]++
	faults[name]()
}

// A soakHub is an address of a hub whose process is restarted.
type soakHub struct {
	world *soakWorld
	*hubtest.Instance
}

// soakFlags returns flags with small limits, so that the test reaches them.
func soakFlags(feed string) []string {
	return []string{"--feed", feed, "--log-level", "error",
		"--ping-interval", "1s", "--write-timeout", "2s", "--retry", "200ms", "--drain-delay", "500ms", "--drain", "1s",
		"--send-buffer", "16KiB", "--queue", "256", "--queue-bytes", "128KiB", "--max-payload", "16KiB",
		"--history-per-user", "200", "--history-age", "20s", "--history-bytes", "512KiB",
		"--group-prefix", "group-", "--presence"}
}

// resources are the resources of a process that must not leak.
type resources struct{ goroutines, descriptors, memory int }

var goroutineTotal = regexp.MustCompile(`goroutine profile: total (\d+)`)

func (h *soakHub) resources() (r resources) {
	t := h.world.t
	t.Helper()
	profile := hubtest.Request(t, "GET", "http://"+h.Admin+"/debug/pprof/goroutine?debug=1")
	if m := goroutineTotal.FindStringSubmatch(profile.Body); m != nil {
		r.goroutines, _ = strconv.Atoi(m[1])
	}
	proc := fmt.Sprintf("/proc/%d/", h.Program.Cmd.Process.Pid)
	fds, _ := filepath.Glob(proc + "fd/*")
	r.descriptors = len(fds)
	status, _ := os.ReadFile(proc + "status")
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			r.memory, _ = strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(kb), " kB"))
		}
	}
	return r
}

// checkRest checks the totals of a hub's counters after all pages have disconnected, and that no resources leaked.
func (h *soakHub) checkRest(permanent bool, before resources) {
	t := h.world.t
	t.Helper()
	hubtest.Eventually(t, "all streams have ended", func() bool { return hubtest.Scrape(t, h.Admin).Sum("usercast_clients") == 0 })
	m := hubtest.Scrape(t, h.Admin)
	for whole, parts := range map[string][]string{
		"messages_received_total": {"messages_routed_total", "messages_unrouted_total", "messages_malformed_total", "messages_too_large_total"},
		"frames_enqueued_total":   {"deliveries_total", "frames_discarded_total", "frames_queued"},
		"connects_total":          {"disconnects_total"},
	} {
		sum := 0.0
		for _, part := range parts {
			sum += m.Sum("usercast_" + part)
		}
		if got := m.Sum("usercast_" + whole); got != sum {
			t.Errorf("%s is %v, its parts are %v", whole, got, sum)
		}
	}
	for _, none := range []string{"frames_queued", "users", "groups"} {
		if n := m.Sum("usercast_" + none); n != 0 {
			t.Errorf("%v %s at rest", n, none)
		}
	}
	if !permanent {
		return
	}
	var now resources
	for deadline := time.Now().Add(hubtest.Patience); ; time.Sleep(10 * time.Millisecond) {
		now = h.resources()
		if now.goroutines <= before.goroutines && now.descriptors <= before.descriptors {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("resources after the test: %+v, before: %+v", now, before)
			break
		}
	}
	t.Logf("the hub that was never restarted: %.0f streams, %.0f messages, %.0f frames = %.0f delivered + %.0f discarded, %.0f replayed; ends %v; gaps %v; before %+v, after %+v",
		m.Sum("usercast_connects_total"), m.Sum("usercast_messages_received_total"), m.Sum("usercast_frames_enqueued_total"),
		m.Sum("usercast_deliveries_total"), m.Sum("usercast_frames_discarded_total"), m.Sum("usercast_replayed_total"),
		nonzero(m, "usercast_disconnects_total"), nonzero(m, "usercast_gaps_total"), before, now)
}

// nonzero returns the nonzero samples of a metric by reason.
func nonzero(s hubtest.Samples, name string) map[string]float64 {
	some := make(map[string]float64)
	for sample, v := range s {
		if reason, ok := strings.CutPrefix(sample, name+`{reason="`); ok && v != 0 {
			some[strings.TrimSuffix(reason, `"}`)] = v
		}
	}
	return some
}

// checkMemory compares the maximum of the second half with that of the first half, excluding the start-up.
func (w *soakWorld) checkMemory(kib []int) {
	w.t.Helper()
	if len(kib) < 20 {
		return // too few samples
	}
	first, second := slices.Max(kib[len(kib)/5:len(kib)/2]), slices.Max(kib[len(kib)/2:])
	if second > first*5/4+8<<10 {
		w.t.Errorf("memory grows: maximum %d KiB in the first half, %d KiB in the second", first, second)
	}
	w.t.Logf("memory: %d KiB at the beginning, maximum %d in the first half, %d in the second, %d at the end", kib[0], first, second, kib[len(kib)-1])
}

func (w *soakWorld) summarize(length time.Duration) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t.Logf("%s, %v: %d messages; pages: %v; faults: %v", w.feed, length, len(w.app.log), w.counts, w.faults)
	for _, wrong := range w.wrong[:min(len(w.wrong), 20)] {
		w.t.Error(wrong)
	}
}
