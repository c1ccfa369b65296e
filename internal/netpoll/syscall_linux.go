package netpoll

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// write is write(2) on a non-blocking socket.
func write(fd int, data []byte) (int, error) {
	if len(data) == 0 {
		return 0, nil
	}
	return result(syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data))))
}

// read is read(2) on a non-blocking socket. data must not be empty.
func read(fd int, data []byte) (int, error) {
	for {
		n, err := result(syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data))))
		if err != unix.EINTR {
			return n, err
		}
	}
}

// accept4 is accept4(2) on a non-blocking listener. The new socket does not block either.
func accept4(fd int, from *unix.RawSockaddrAny) (int, error) {
	size := uint32(unsafe.Sizeof(*from))
	return result(syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(from)), uintptr(unsafe.Pointer(&size)),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0))
}

// epollCtl is epoll_ctl(2).
func epollCtl(epoll, op, fd int, event *unix.EpollEvent) error {
	_, err := result(syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(epoll), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(event)), 0, 0))
	return err
}

// epollWait is epoll_wait(2) with a timeout of 0.
func epollWait(epoll int, events []unix.EpollEvent) (int, error) {
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

// addrPort returns the address in sa, or the zero value if that is neither IPv4 nor IPv6 without a zone.
func addrPort(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), hostOrder(sa.Port))
	case unix.AF_INET6:
		if sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa)); sa.Scope_id == 0 {
			return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), hostOrder(sa.Port))
		}
	}
	return netip.AddrPort{}
}

// hostOrder converts a port from network byte order.
func hostOrder(n uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], n)
	return binary.BigEndian.Uint16(b[:])
}
