package app

import (
	"context"
	"math"
	"math/bits"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// gcPercent is twice Go's default. Messages on their way wait for a collection, which
// looks at all streams and at the history: with half as many of them, fewer are among
// the slowest. GOGC in the environment wins.
const gcPercent = 200

// TuneGC sets the collector of the process.
func TuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// tendMemory keeps the memory of the process to what streams and history need.
func (a *App) tendMemory(ctx context.Context) {
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var waves trimmer
	for {
		n := a.hub.Stats()
		limitMemory(a.cfg.MemoryBound(n.Clients))
		waves.look(n.Connects)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// MemoryBound is the most that a hub with so many streams takes, as docs/guarantees.md
// promises.
func (c *Config) MemoryBound(streams int) int64 {
	const perStream, own = 64 << 10, 64 << 20
	carry, held := bits.Mul64(3, uint64(c.QueueTotalBytes.T)+uint64(c.HistoryBytes.T))
	if carry > 0 || held > math.MaxInt64/2 || int64(streams) > math.MaxInt64/4/perStream {
		return math.MaxInt64
	}
	return int64(held) + int64(streams)*perStream + own
}

// ProgramSize is what of a bound Go's memory limit does not count: the program's text and
// constants, as far as they are resident.
const ProgramSize = 24 << 20

// limitMemory keeps Go's memory within a bound: what is allocated while a collection is
// under way counts as in use for the next one, and with less than its share of a
// busy machine the collector would let the heap grow without end. GOMEMLIMIT in the
// environment wins.
func limitMemory(bound int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bound - ProgramSize)
	}
}

// A trimmer gives the garbage of a wave of new streams back to the system once the wave
// is over; the collector by itself would keep it for as long as little else happens.
type trimmer struct {
	trimmed, last uint64 // connects
}

// A stream leaves garbage behind when it is opened, 3 KiB or, with net/http, 13: several
// times what it holds afterwards. This many are worth a collection.
const trimAfter = 1000

// look is called once a second with the number of streams that were ever opened.
func (t *trimmer) look(connects uint64) {
	calm := connects-t.last < trimAfter/100
	if t.last = connects; calm && connects-t.trimmed >= trimAfter {
		runtime.GC() // what a sync.Pool holds lives through one collection
		debug.FreeOSMemory()
		t.trimmed = connects
	}
}
