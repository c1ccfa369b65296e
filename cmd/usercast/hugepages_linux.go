package main

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// hugeHeap is how much of the heap is to be in huge pages: what streams and history
// take at the defaults. It is address space; memory is taken as it is used.
const hugeHeap = 128 << 20

// useHugePages asks for huge pages for the part of the heap that is to be used next.
// Streams, users and history are all over the heap, and each message touches some of
// each: with small pages, finding their addresses and taking fresh pages from the
// kernel is a fifth of the CPU time of a delivery. Where the kernel gives huge pages
// to nobody, it does nothing.
func useHugePages() {
	space := make([]byte, hugeHeap)
	_ = unix.Madvise(space, unix.MADV_HUGEPAGE) // without, all is slower and nothing else
	space = nil
	debug.FreeOSMemory() // for the heap to use it
}
