package sse_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// A parked stream to which nothing happens has no goroutine, and takes less memory than
// the smallest stack, also when writers have come and gone.
func TestIdlePollStreamHasNoGoroutine(t *testing.T) {
	const streams, bound = 500, 2 << 10 // bytes for each, the test's own end included
	for name, fast := range map[string]bool{"fast path": true, "net/http parked": false} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, config{fast: fast})
			peers := make([]*peer, 0, streams+1)
			open := func() {
				p := dial(t, s, request(fmt.Sprint("user=", len(peers))))
				p.head()
				peers = append(peers, p)
			}
			hello := func() {
				s.hub.Publish("*", "", "hello")
				for _, p := range peers {
					p.read(len("data: hello\nid: abcdefgh-1\n\n"))
				}
			}
			open() // whatever is there once for all streams
			hello()
			goroutines, heap := runtime.NumGoroutine(), inUse()
			for range streams {
				open()
			}
			hello()
			if n := settled(goroutines); n > goroutines {
				t.Errorf("%d goroutines more for %d streams", n-goroutines, streams)
			}
			each := (inUse() - heap) / streams
			if each > bound {
				t.Errorf("%d bytes for each stream, want at most %d", each, bound)
			}
			t.Logf("%d bytes for each stream", each)
			runtime.KeepAlive(peers)
		})
	}
}

// settled is how many goroutines there are once those that are about to end have: at
// most bound, or more if that does not come.
func settled(bound int) int {
	for start := time.Now(); runtime.NumGoroutine() > bound && time.Since(start) < 10*time.Second; {
		time.Sleep(time.Millisecond)
	}
	return runtime.NumGoroutine()
}

// inUse is the memory of heap and stacks after a collection.
func inUse() int64 {
	runtime.GC()
	runtime.GC() // what pools have kept
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
