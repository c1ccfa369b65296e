package app

import (
	"math"
	"runtime"
	"strconv"
	"testing"
)

// Memory is returned once, after a burst of new streams: not during the burst, and not for a low rate of new streams.
func TestMemoryIsTrimmedAfterABurstOfStreams(t *testing.T) {
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
		t.Errorf("low rate: %d collections, want 0", n)
	}
	if n := seconds(5, 1000); n != 0 {
		t.Errorf("during a burst: %d collections, want 0", n)
	}
	if n := seconds(10, 0); n != 2 { // one of them for objects in pools
		t.Errorf("after a burst: %d collections, want 2", n)
	}
}

// docs/guarantees.md documents this formula.
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
