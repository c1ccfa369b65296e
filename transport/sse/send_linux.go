package sse

import (
	"syscall"
	"unsafe"
)

// send writes to a socket that does not block. The scheduler is not told of the call,
// as it is of one that may wait: it would look after each of them, every 20 µs, whether
// another thread should take over meanwhile.
func send(fd int32, data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
