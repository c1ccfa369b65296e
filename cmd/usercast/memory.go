package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// gcPercent is twice Go's default. A collection walks the stacks of all streams, and
// messages on their way then wait for it: at 10,000 streams and 5,000 messages a
// second it is what makes the slowest hundredth slow. GOGC in the environment wins.
const gcPercent = 200

func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

const (
	trimEvery = time.Second
	// A stream leaves some 13 KiB of net/http's garbage behind when it is opened,
	// several times what it holds afterwards. This many are worth a collection.
	trimAfter = 1000
)

// trim gives the garbage of a wave of new streams back to the system once the wave
// is over; the collector by itself would keep it for as long as little else happens.
func trim(ctx context.Context, huge *hugeSpace, connects func() uint64) {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	trimmed, last := connects(), connects()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		huge.watch()
		now := connects()
		calm := now-last < trimAfter/100
		if last = now; calm && now-trimmed >= trimAfter {
			runtime.GC() // what a sync.Pool holds lives through one collection
			debug.FreeOSMemory()
			huge.release()
			trimmed = now
		}
	}
}
