package main

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Memory is given back once, when a wave of new streams is over: not during it, and
// not for a trickle.
func TestTrimAfterAWaveOfStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		var connects atomic.Uint64
		done := make(chan struct{})
		go func() {
			defer close(done)
			trim(ctx, connects.Load)
		}()
		seconds := func(n int, each uint64) (collections uint32) {
			t.Helper()
			before := forcedCollections()
			for range n {
				connects.Add(each)
				time.Sleep(trimEvery)
				synctest.Wait()
			}
			return forcedCollections() - before
		}
		time.Sleep(trimEvery / 2) // between two ticks
		if n := seconds(99, 10); n != 0 {
			t.Errorf("a trickle: %d collections", n)
		}
		if n := seconds(5, 1000); n != 0 {
			t.Errorf("during a wave: %d collections", n)
		}
		if n := seconds(10, 0); n != 2 { // one for what pools hold
			t.Errorf("after a wave: %d collections, want 2", n)
		}
		stop()
		<-done
	})
}

func forcedCollections() uint32 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.NumForcedGC
}
