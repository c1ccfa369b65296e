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

// gcPercent is twice the default of Go. Messages in flight wait for a collection, which
// scans all streams and the history: with half as many collections, fewer messages are
// slow. GOGC in the environment takes precedence.
const gcPercent = 200

// TuneGC configures the garbage collector of the process.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// manageMemory limits the memory of the process to what streams and history need, until ctx is done.
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

// MemoryBound is the largest memory in bytes of a hub with so many streams, as docs/guarantees.md
// promises.
func (c *Config) MemoryBound(streams int) int64 {
	const perStream, own = 64 << 10, 64 << 20
	carry, held := bits.Mul64(3, uint64(c.QueueTotalBytes.T)+uint64(c.HistoryBytes.T))
	if carry > 0 || held > math.MaxInt64/2 || int64(streams) > math.MaxInt64/4/perStream {
		return math.MaxInt64
	}
	return int64(held) + int64(streams)*perStream + own
}

// ProgramSize is the part in bytes of a bound that the memory limit of Go does not count: the resident code and
// constants of the program.
const ProgramSize = 24 << 20

// limitMemory limits Go's memory to a bound: allocations during a collection count as in use
// for the next one, and with less than its share of a busy machine the collector would let
// the heap grow without limit. GOMEMLIMIT in the environment takes precedence.
func limitMemory(bound int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bound - ProgramSize)
	}
}

// A trimmer returns the garbage of many new streams to the system, once few streams are
// opened again; the collector alone would keep it as long as little else happens.
type trimmer struct {
	trimmed, last uint64 // numbers of connects
}

// Opening a stream leaves garbage, 3 KiB or, with net/http, 13 KiB: several
// times what the stream holds afterwards. So many are worth a collection.
const trimAfter = 1000

// update is called once per second with the number of streams that were ever opened.
func (t *trimmer) update(connects uint64) {
	calm := connects-t.last < trimAfter/100
	if t.last = connects; calm && connects-t.trimmed >= trimAfter {
		runtime.GC() // objects in a sync.Pool survive one collection
		debug.FreeOSMemory()
		t.trimmed = connects
	}
}
