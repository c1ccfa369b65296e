package sse

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls that are made for each message and each new stream. None of them ever
// waits, so the scheduler is not told of them: it would look every 20 µs for a while whether
// another thread should take over meanwhile, which takes more time than the calls.

// send is write(2) on a socket that does not block.
func send(fd int32, data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	return result(syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data))))
}

// receive is read(2) on a socket that does not block; data is not empty.
func receive(fd int, data []byte) (int, error) {
	for {
		n, err := result(syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data))))
		if err != unix.EINTR {
			return n, err
		}
	}
}

// accept4 is accept4(2) on a listener that does not block. The socket does not block either.
func accept4(fd int, from *unix.RawSockaddrAny) (int, error) {
	size := uint32(unsafe.Sizeof(*from))
	return result(syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0))
}

// controlEpoll is epoll_ctl(2).
func controlEpoll(epoll, op, fd int, event *unix.EpollEvent) error {
	_, err := result(syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0))
	return err
}

// pollEpoll is epoll_wait(2) without a wait.
func pollEpoll(epoll int, events []unix.EpollEvent) (int, error) {
	for {
		n, err := result(syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0))
		if err != unix.EINTR {
			return n, err
		}
	}
}

func result(n, _ uintptr, errno syscall.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
