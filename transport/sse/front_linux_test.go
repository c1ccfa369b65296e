package sse_test

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"usercast/hub"
)

// A second message must not wait until the first is acknowledged, which a browser may
// put off for 40 ms; and a spare connection's peer that vanished is found out. net/http's
// connections have these options from package net.
func TestFrontSocketsAreAsThoseOfNet(t *testing.T) {
	s := serve(t, config{front: true})
	p := dial(t, s, request("user=42"))
	p.head()
	fd := otherEnd(t, p.conn)
	for name, option := range map[string][2]int{
		"TCP_NODELAY":  {unix.IPPROTO_TCP, unix.TCP_NODELAY},
		"SO_KEEPALIVE": {unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	} {
		if on, err := unix.GetsockoptInt(fd, option[0], option[1]); err != nil || on != 1 {
			t.Errorf("%s is %d, %v", name, on, err)
		}
	}
	if idle, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE); err != nil || idle != 15 {
		t.Errorf("TCP_KEEPIDLE is %d, %v", idle, err)
	}
}

// A peer that says at once that it has no more to say is gone at once, as it is to
// net/http: the kernel tells of both in one event.
func TestFrontHearsALeaveThatCameWithTheRequest(t *testing.T) {
	c := config{front: true, listener: listen(t, 128<<10, time.Hour)}
	c.sse.PingInterval, c.sse.WriteTimeout = time.Hour, time.Hour
	conn, err := net.Dial("tcp", c.listener.Addr().String()) // nobody accepts yet
	if err != nil {
		t.Fatal(err)
	}
	ask(t, conn, request("user=42"))
	conn.(*net.TCPConn).CloseWrite()
	serve(t, c).wantEnd(hub.ErrClosed)
}

// otherEnd is the descriptor of the other end of a connection within this process.
func otherEnd(t *testing.T, conn net.Conn) int {
	t.Helper()
	port := conn.LocalAddr().(*net.TCPAddr).Port
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		fd, err := strconv.Atoi(filepath.Base(link))
		if err != nil {
			t.Fatal(err)
		}
		if peer, err := unix.Getpeername(fd); err == nil {
			if v4, ok := peer.(*unix.SockaddrInet4); ok && v4.Port == port {
				return fd
			}
		}
	}
	t.Fatal("nobody is at the other end")
	return -1
}

// descriptors is how many this process has open.
func descriptors(t testing.TB) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
