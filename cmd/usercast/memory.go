package main

import (
	"context"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

// gcPercent is twice Go's default. Messages on their way wait for a collection, which
// looks at all streams and at the history: with half as many of them, fewer are among
// the slowest. GOGC in the environment wins.
const gcPercent = 200

func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

const (
	trimEvery = time.Second
	// A stream leaves garbage behind when it is opened, 3 KiB or, with net/http, 13:
	// several times what it holds afterwards. This many are worth a collection.
	trimAfter = 1000
)

// trim gives the garbage of a wave of new streams back to the system once the wave
// is over; the collector by itself would keep it for as long as little else happens.
func trim(ctx context.Context, connects func() uint64) {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	trimmed, last := connects(), connects()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := connects()
		calm := now-last < trimAfter/100
		if last = now; calm && now-trimmed >= trimAfter {
			runtime.GC() // what a sync.Pool holds lives through one collection
			debug.FreeOSMemory()
			trimmed = now
		}
	}
}
