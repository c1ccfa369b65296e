//go:build unix

package sse_test

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkPing measures the CPU time per ping of an idle stream, including both ends of the stream. The
// elapsed time only reflects the ping interval.
func BenchmarkPing(b *testing.B) {
	const streams, interval = 200, 50 * time.Millisecond
	_, address := benchSite(b, interval)
	var readers []*reader
	for range streams {
		r := dialReader(b, address)
		defer r.conn.Close()
		readers = append(readers, r)
	}
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		for _, r := range readers {
			if line, err := r.in.ReadSlice('\n'); err != nil || line[0] != ':' {
				b.Fatalf("got %q, %v", line, err)
			}
		}
	}
	used := processorTime(b) - before
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N*streams), "cpu-ns/ping")
	b.ReportMetric(0, "ns/op")
}

// processorTime returns the CPU time of this process.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
