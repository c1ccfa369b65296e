//go:build linux

package main

import (
	"bytes"
	"net/netip"
	"net/url"
	"slices"

	"golang.org/x/sys/unix"
)

// serve accepts connections, reads requests and detects disconnects. Only this goroutine opens and closes streams.
func (t *table) serve(address netip.AddrPort) {
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	must("make a socket", err)
	must("reuse the address", unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
	must("bind", unix.Bind(listener, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}))
	must("listen", unix.Listen(listener, 4096))
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	must("make an epoll", err)
	watch(poll, listener)
	for events := make([]unix.EpollEvent, 256); ; {
		n, err := unix.EpollWait(poll, events, -1)
		if err != unix.EINTR {
			must("wait for events", err)
		}
		for _, event := range events[:max(n, 0)] {
			if fd := int(event.Fd); fd == listener {
				t.accept(poll, listener)
			} else if !t.read(fd) {
				t.close(fd)
			}
		}
	}
}

func watch(poll, fd int) {
	must("watch a socket", unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}))
}

func (t *table) accept(poll, listener int) {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return // without a pending connection or a free descriptor
		}
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // otherwise frames wait for acknowledgments
		watch(poll, fd)
	}
}

// read reads a request, which must arrive in one piece. It returns false if the connection must be closed.
func (t *table) read(fd int) bool {
	var buffer [4096]byte
	n, err := unix.Read(fd, buffer[:])
	if n <= 0 || t.userOf(fd) != "" { // after the request
		return err == unix.EAGAIN || n > 0
	}
	request, whole := bytes.CutSuffix(buffer[:n], []byte("\r\n\r\n"))
	line, _, _ := bytes.Cut(request, []byte(" HTTP/1.1\r\n"))
	query, ok := bytes.CutPrefix(line, []byte("GET /events?"))
	values, err := url.ParseQuery(string(query))
	if !whole || !ok || err != nil || values.Get("user") == "" {
		write(fd, []byte("HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n"))
		return false
	}
	t.open(fd, values.Get("user"))
	return true
}

// open responds under the lock, so that frames do not precede the headers.
func (t *table) open(fd int, user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	write(fd, []byte("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nConnection: close\r\n\r\n:\n\n"))
	t.streams = append(t.streams, make([]stream, max(0, fd+1-len(t.streams)))...)
	t.streams[fd] = stream{user, t.writerOf(user)}
	t.users[user] = append(t.users[user], fd)
	clients.Inc()
}

// userOf returns the user of a stream, or "" if fd is not a stream. Only the goroutine of serve calls it without the lock.
func (t *table) userOf(fd int) string {
	if fd < len(t.streams) {
		return t.streams[fd].user
	}
	return ""
}

func (t *table) close(fd int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if user := t.userOf(fd); user != "" {
		t.users[user] = slices.DeleteFunc(t.users[user], func(other int) bool { return other == fd })
		if len(t.users[user]) == 0 {
			delete(t.users, user)
		}
		t.streams[fd] = stream{}
		clients.Dec()
	}
	unix.Close(fd)
}
