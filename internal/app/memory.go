package app

import (
	"context"
	"math"
	"math/bits"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	"usercast/hub"
)

// gcPercent is twice the default of Go. A garbage collection scans all streams and the history, and delays messages in
// flight. Half as many collections delay fewer messages. GOGC in the environment takes precedence.
const gcPercent = 200

// TuneGC configures the garbage collector of the process.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// manageMemory adapts the memory limit of the process to the number of streams, until ctx is done.
func manageMemory(ctx context.Context, cfg *Config, h *hub.Hub) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var t trimmer
	for {
		n := h.Stats()
		limitMemory(cfg.MemoryBound(n.Clients))
		t.update(n.Connects)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// MemoryBound returns the maximum memory in bytes of a hub with the given number of streams, as documented in
// docs/guarantees.md.
func (c *Config) MemoryBound(streams int) int64 {
	const perStream, own = 64 << 10, 64 << 20
	carry, held := bits.Mul64(3, uint64(c.QueueTotalBytes.T)+uint64(c.HistoryBytes.T))
	if carry > 0 || held > math.MaxInt64/2 || int64(streams) > math.MaxInt64/4/perStream {
		return math.MaxInt64
	}
	return int64(held) + int64(streams)*perStream + own
}

// ProgramSize is the size in bytes of the program's resident code and constants. MemoryBound includes it, but the memory
// limit of Go does not.
const ProgramSize = 24 << 20

// limitMemory sets the memory limit of Go. Without it, the heap could grow without limit on a busy host: objects that are
// allocated during a collection survive it, and a collection that gets little CPU time takes long. GOMEMLIMIT in the
// environment takes precedence.
func limitMemory(bound int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bound - ProgramSize)
	}
}

// A trimmer returns the garbage of many new streams to the operating system, after the rate of new streams has dropped. The
// garbage collector alone would keep that memory while the hub is idle.
type trimmer struct {
	trimmed, last uint64 // numbers of opened streams: at the last trim, and at the last update
}

// trimAfter is the number of new streams after which a collection is worthwhile. Opening a stream leaves 3 KiB of garbage,
// or 13 KiB with net/http, which is several times the size of an open stream.
const trimAfter = 1000

// update must be called once per second, with the total number of streams opened so far.
func (t *trimmer) update(connects uint64) {
	calm := connects-t.last < trimAfter/100
	if t.last = connects; calm && connects-t.trimmed >= trimAfter {
		runtime.GC() // objects in a sync.Pool survive one collection
		debug.FreeOSMemory()
		t.trimmed = connects
	}
}
