package main

import (
	"bytes"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/internal/redistest"
)

// wireBytes agrees with a real Redis, also for lengths with other numbers of digits.
func TestWireBytesMatchRedis(t *testing.T) {
	server := redistest.Start(t)
	for _, size := range []int{0, 9, 10, 200, 1000} {
		s, err := subscribe(server.Addr(), 2)
		if err != nil {
			t.Fatal(err)
		}
		payload := strings.Repeat("x", size)
		sent, err := load{connections: 2, outstanding: 3, payload: payload, length: 100 * time.Millisecond}.publish(server.Addr())
		if err != nil || sent == 0 {
			t.Fatalf("%d sent, %v", sent, err)
		}
		want := int64(2 * sent * wireBytes("user-*", "user-0000000:activity", payload))
		if err := await("all messages", func() bool { return s.bytes.Load() >= want }); err != nil {
			t.Error(err)
		}
		if n := s.bytes.Load(); n != want {
			t.Errorf("payload of %d: %d bytes, want %d", size, n, want)
		}
		s.close()
	}
}

func TestStreamFeedIsPublished(t *testing.T) {
	server := redistest.Start(t)
	sent, err := load{feed: "stream", rate: 1000, connections: 2, outstanding: 8, payload: "x", length: 200 * time.Millisecond}.publish(server.Addr())
	if n := server.Do("xlen", "usercast:log"); err != nil || sent == 0 || sent > 200 || n != int64(sent) {
		t.Errorf("%d sent, %v in the stream, %v", sent, n, err)
	}
}

func TestEgressWritesARow(t *testing.T) {
	var out bytes.Buffer
	m := measurement{out: &out, port: redistest.FreePort(t)}
	if err := m.egress(2, load{connections: 2, outstanding: 8, payload: "x", length: 50 * time.Millisecond}); err != nil || strings.Count(out.String(), "|") != 7 {
		t.Errorf("%q, %v", out.String(), err)
	}
	if _, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(m.port)); err == nil {
		t.Error("its redis-server is still running")
	}
}

func TestSumOfAMetric(t *testing.T) {
	const text = "# HELP a b\na{x=\"1 2\"} 3\na{x=\"2\"} 4\nab 5\nb 1e3\n"
	if a, b := sumOf(text, "a"), sumOf(text, "b"); a != 7 || b != 1000 {
		t.Errorf("a %v, b %v", a, b)
	}
}
