package main

import (
	"runtime/debug"
	"runtime/metrics"
	"unsafe"

	"golang.org/x/sys/unix"
)

// hugeHeap is how much of the heap is to be in huge pages: what streams and history
// take at the defaults. It is address space; memory is taken as it is used.
const hugeHeap = 128 << 20

// A hugeSpace is the part of the heap's addresses for which the kernel is asked for huge
// pages. Streams, users and history are all over the heap, and each message and each
// new stream touches some of each: with small pages, to take them from the kernel and to
// find their addresses is a fifth of the CPU time.
//
// A part in which little is left is better off with small ones: the kernel would fill
// it up again (khugepaged), and idle streams would take half as much memory again.
type hugeSpace struct {
	base uintptr // 0: there is none
	most uint64  // bytes of the heap that were ever resident
}

// newHugeSpace asks for huge pages for the addresses that the heap is to use next.
// Where the kernel gives them to nobody, it does nothing.
func newHugeSpace() *hugeSpace {
	space := make([]byte, hugeHeap)
	h := new(hugeSpace)
	if unix.Madvise(space, unix.MADV_HUGEPAGE) == nil {
		h.base = uintptr(unsafe.Pointer(unsafe.SliceData(space)))
	}
	space = nil
	debug.FreeOSMemory() // the heap has the addresses, and no memory at them
	return h
}

// watch notes how much of the heap is resident. The heap takes the lowest addresses
// that are free, so it has never been beyond that.
func (h *hugeSpace) watch() {
	if h.base != 0 {
		resident := []metrics.Sample{
			{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
		}
		metrics.Read(resident)
		h.most = max(h.most, resident[0].Value.Uint64()+resident[1].Value.Uint64()+resident[2].Value.Uint64())
	}
}

// release lets small pages do for what the heap has used so far, of which most has
// been given back.
func (h *hugeSpace) release() {
	if h.base != 0 {
		used := min(h.most+pageMost, hugeHeap)
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, h.base, uintptr(used), unix.MADV_NOHUGEPAGE)
	}
}

// pageMost is the size of a huge page, or more.
const pageMost = 2 << 20
