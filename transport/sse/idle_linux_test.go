package sse_test

import (
	"fmt"
	"runtime"
	"testing"

	"usercast/hub"
)

// An idle stream in the poller does not have a goroutine, and needs less memory than the smallest stack,
// even after it was written to.
func TestIdlePollStreamHasNoGoroutine(t *testing.T) {
	const streams, bound = 500, 2 << 10 // bytes per stream, including the test's end of it
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
				s.hub.Publish(hub.User("*"), "", "hello")
				for _, p := range peers {
					p.read(len("data: hello\nid: abcdefgh-1\n\n"))
				}
			}
			open() // allocates what all streams share
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

// inUse returns the memory of heap and stacks after a garbage collection.
func inUse() int64 {
	runtime.GC()
	runtime.GC() // empties the victim caches of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
