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
	"usercast/transport/sse"
)

// A second message must not wait until the first is acknowledged, which a browser may
// put off for 40 ms; and a spare connection's peer that vanished is found out. net/http's
// connections have these options from package net.
func TestFrontSocketsAreAsThoseOfNet(t *testing.T) {
	s := serve(t, config{front: true})
	p := dial(t, s, request("user=42"))
	p.head()
	fd, _ := otherEnd(t, p.conn)
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

// Whoever comes in the moment in which a front is closed is let go as well, be it that
// he has asked for something or not.
func TestClosedFrontKeepsNobody(t *testing.T) {
	for range 30 {
		l := listen(t, 128<<10, time.Second)
		s := newSite(t, config{sse: sse.Config{Crowd: sse.NewCrowd(100)}})
		front, err := s.handler.Front(l, "/events", s.handler)
		if err != nil {
			t.Fatal(err)
		}
		var conns []net.Conn
		closed := make(chan error)
		for i := range 20 {
			conn, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				break
			}
			defer conn.Close()
			if conns = append(conns, conn); i == 3 {
				go func() { closed <- front.Close() }()
			}
		}
		if err := <-closed; err != nil {
			t.Fatal(err)
		}
		for i, conn := range conns {
			if fd, ok := otherEnd(t, conn); ok {
				t.Fatalf("connection %d is kept as descriptor %d", i, fd)
			}
		}
		s.handler.Wait()
	}
}

// otherEnd is the descriptor of the other end of a connection within this process.
func otherEnd(t *testing.T, conn net.Conn) (fd int, ok bool) {
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
				return fd, true
			}
		}
	}
	return 0, false
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
