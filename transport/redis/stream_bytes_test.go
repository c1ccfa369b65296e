package redis

import (
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"usercast/hub"
	"usercast/internal/redistest"
	"usercast/transport/redis/internal/topology"
)

// sent returns how many bytes a server has sent to all clients.
func sent(t *testing.T, server *redistest.Server) int {
	t.Helper()
	n, err := strconv.Atoi(topology.InfoField(server.Do("INFO", "stats").(string), "total_net_output_bytes"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const addMany = `for i = 1, ARGV[1] do redis.call("XADD", KEYS[1], "*", "ch", "user-42", "data", ARGV[2]) end return 1`

// peak measures the heap until the returned func is called, which returns its maximum growth. It includes garbage between
// two collections.
func peak() func() uint64 {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var most atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if now := heap(); now > before && now-before > most.Load() {
				most.Store(now - before)
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-done
		return most.Load()
	}
}

// However large entries are, at most 1 MiB and two entries of a reply are kept, even if earlier entries were small. A
// payload over MaxPayload is not kept. Not parallel, because the test measures memory.
func TestLargeEntriesAreReadInSmallParts(t *testing.T) {
	const large = 25 // 2 MiB each: together far more than the bounds
	for name, test := range map[string]struct {
		maxPayload int
		routed     uint64
		most       uint64
	}{
		"within MaxPayload": {2 << 20, large, 24 << 20},
		"over MaxPayload":   {1 << 20, 0, 8 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t)
			f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) {
				c.Hub, c.MaxPayload = new(countingHub), test.maxPayload
			})
			server.Do("EVAL", addMany, 1, "log", 1000, "small") // makes the feed request many entries at once
			f.await(t, "the small ones", func() bool { return f.Stats().Received == 1000 })
			growth := peak()
			server.Do("EVAL", addMany, 1, "log", large, strings.Repeat("x", 2<<20))
			f.await(t, "the large ones", func() bool { return f.Stats().Received == 1000+large })
			if n := growth(); n > test.most {
				t.Errorf("the heap grew by %d MiB, want at most %d", n>>20, test.most>>20)
			}
			if s := f.Stats(); s.Routed != 1000+test.routed || s.TooLarge != large-test.routed {
				t.Errorf("%+v", s)
			}
		})
	}
}

// At the start, the feed reads the entries that fit into the window, and little more.
func TestStartReadsLittleMoreThanTheWindow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("EVAL", addMany, 1, "log", 200, strings.Repeat("x", 1<<20))
	before := sent(t, server)
	var h countingHub
	follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) {
		c.Hub, c.MaxPayload, c.WindowBytes = &h, 1<<20, 4<<20
	})
	if n := h.loaded.Load(); n != 3 {
		t.Errorf("%d entries were loaded, want 3", n)
	}
	if n := sent(t, server) - before; n > 12<<20 {
		t.Errorf("%d MiB were read for a window of 4 MiB", n>>20)
	}
}

// While nothing is appended, the feed does not read the entries of the stream repeatedly.
func TestIdleStreamIsNotReadAgain(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	server.Do("EVAL", addMany, 1, "log", 3, strings.Repeat("x", 1<<20))
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.Block = 20 * time.Millisecond })
	looks := func(n int) {
		t.Helper()
		n += callsOf(t, server, "xread")
		f.await(t, "requests", func() bool { return callsOf(t, server, "xread") >= n })
	}
	looks(3)
	before := sent(t, server)
	looks(30)
	if n := sent(t, server) - before; n > 1<<20 {
		t.Errorf("%d KiB were sent for 30 requests without new entries", n>>10)
	}
}

// Queries for entries older than the window do not keep the entries that they scan.
func TestQueriesOverLargeEntriesAreBounded(t *testing.T) {
	server := redistest.Start(t)
	server.Do("XADD", "log", "1-0", "ch", "user-7", "data", "first")
	server.Do("EVAL", addMany, 1, "log", 40, strings.Repeat("x", 2<<20))
	f := follow(t, parse(t, server.URL(), ServerOptions{}), func(c *StreamConfig) { c.WindowBytes, c.MaxPayload = 1, 2<<20 })
	growth := peak()
	answered := 0
	for at := (hub.ID{}); at.Compare(f.newest) < 0; answered++ {
		r := f.askFor("7", at, f.newest)
		if r.gap != 0 {
			t.Fatal(r.gap)
		}
		if at.Compare(r.covered) >= 0 {
			t.Fatalf("after %v nothing was covered", at)
		}
		at = r.covered
	}
	if n := growth(); n > 24<<20 {
		t.Errorf("the heap grew by %d MiB", n>>20)
	}
	if answered < 2 {
		t.Error("one pass read everything, although it is bounded in bytes")
	}
	// A query for all entries receives them in answers of a bounded size.
	id := hub.ID{Ms: 1, Seq: 0}
	r := f.askFor("42", id, f.newest)
	if r.gap != 0 || len(r.entries) != 1 {
		t.Errorf("%d entries, %v", len(r.entries), r.gap)
	}
}
