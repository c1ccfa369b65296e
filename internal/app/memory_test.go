package app

import (
	"math"
	"runtime"
	"strconv"
	"testing"
)

// Memory is given back once, when a wave of new streams is over: not during it, and
// not for a trickle.
func TestTrimAfterAWaveOfStreams(t *testing.T) {
	var trim trimmer
	connects := uint64(0)
	seconds := func(n int, each uint64) (collections uint32) {
		t.Helper()
		before := forcedCollections()
		for range n {
			connects += each
			trim.update(connects)
		}
		return forcedCollections() - before
	}
	if n := seconds(99, 10); n != 0 {
		t.Errorf("a trickle: %d collections", n)
	}
	if n := seconds(5, 1000); n != 0 {
		t.Errorf("during a wave: %d collections", n)
	}
	if n := seconds(10, 0); n != 2 { // one for what pools hold
		t.Errorf("after a wave: %d collections, want 2", n)
	}
}

// The formula is docs/guarantees.md's.
func TestMemoryBound(t *testing.T) {
	var c Config
	c.QueueTotalBytes.T, c.HistoryBytes.T = 256<<20, 64<<20
	if got, want := c.MemoryBound(1000), int64(3*320<<20+1000*64<<10+64<<20); got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
	c.QueueTotalBytes.T = math.MaxInt
	if got := c.MemoryBound(1000); strconv.IntSize == 64 && got != math.MaxInt64 || got < 3*math.MaxInt32 {
		t.Errorf("without a bound: %d bytes", got)
	}
}

func TestMemoryBoundOfMostClientsIsNotNegative(t *testing.T) {
	var c Config
	c.QueueTotalBytes.T, c.HistoryBytes.T = 256<<20, 64<<20
	for _, streams := range []int{1 << 30, math.MaxInt} {
		if got := c.MemoryBound(streams); got < int64(1<<30)*64<<10 {
			t.Errorf("%d streams: %d bytes", streams, got)
		}
	}
}

func forcedCollections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}
