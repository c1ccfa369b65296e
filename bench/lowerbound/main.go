//go:build linux

// Command lowerbound does the minimum work of a hub, for comparison with usercast. It has one epoll instance, one table
// entry per stream, and one write(2) per delivery, without goroutines, buffers or timers per stream.
//
// It does not queue frames, and drops a client that does not accept a whole frame immediately. It does not implement ids,
// replay, limits or authentication. Do not use it in production.
package main

import (
	"flag"
	"hash/maphash"
	"log"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"
)

func main() {
	var listen netip.AddrPort
	flag.TextVar(&listen, "listen", netip.MustParseAddrPort("127.0.0.1:7720"), "IPv4 address of the streams: /events?user=42")
	admin := flag.String("admin", "127.0.0.1:7721", "address of /metrics")
	redis := flag.String("redis", "127.0.0.1:6379", "address of Redis")
	ping := flag.Duration("ping", 15*time.Second, "time between pings")
	writers := flag.Int("writers", 0, "writer goroutines; with 0, the goroutine that reads from Redis writes")
	flag.Parse()

	t := &table{seed: maphash.MakeSeed(), users: make(map[string][]int)}
	for i := range *writers {
		jobs := make(chan job, 1024) // room for a burst; after it, reading from Redis stops
		t.writers = append(t.writers, jobs)
		go func() {
			for j := range jobs {
				t.deliver(j.user, j.frame, i)
			}
		}()
	}
	http.Handle("/metrics", promhttp.Handler())
	go func() { log.Fatal(http.ListenAndServe(*admin, nil)) }()
	go subscribe(*redis, t.publish)
	go t.sweep(*ping)
	t.serve(listen)
}

func must(what string, err error) {
	if err != nil {
		log.Fatalf("cannot %s: %v", what, err)
	}
}

// usercast bench recognizes a hub by the name of this metric.
var clients = promauto.NewGauge(prometheus.GaugeOpts{Name: "usercast_clients", Help: "Open streams."})

// A table has all streams. A descriptor is closed only under the write lock. So a goroutine with the read lock cannot write
// to a wrong stream.
type table struct {
	seed    maphash.Seed // immutable
	writers []chan job   // immutable; each has separate users

	mu      sync.RWMutex
	streams []stream         // by descriptor
	users   map[string][]int // their descriptors
}

// A stream is open when it has a user.
type stream struct {
	user   string
	writer int
}

type job struct {
	user  string
	frame []byte
}

// publish delivers a message, or passes it to the writer of the user. One writer per user preserves the order, including
// broadcasts.
func (t *table) publish(user, frame []byte) {
	if len(t.writers) == 0 {
		t.deliver(string(user), frame, 0)
	}
	for i, jobs := range t.writers {
		if string(user) == "*" || i == t.writerOf(string(user)) {
			jobs <- job{string(user), frame}
		}
	}
}

func (t *table) writerOf(user string) int {
	return int(maphash.String(t.seed, user) % uint64(max(len(t.writers), 1)))
}

// deliver writes a frame to the streams of a user. For a broadcast, it writes to all streams of the writer.
func (t *table) deliver(user string, frame []byte, writer int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, fd := range t.users[user] {
		write(fd, frame)
	}
	for fd := 0; user == "*" && fd < len(t.streams); fd++ {
		if s := &t.streams[fd]; s.user != "" && s.writer == writer {
			write(fd, frame)
		}
	}
}

// write shuts a stream down if its socket does not accept the frame. epoll then reports it.
func write(fd int, frame []byte) {
	if n, err := unix.Write(fd, frame); n < len(frame) || err != nil {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // fails if it is already down
	}
}

// sweep pings each stream once per interval, in 64 parts.
func (t *table) sweep(interval time.Duration) {
	const parts = 64
	for part := 0; ; part = (part + 1) % parts {
		time.Sleep(interval / parts)
		t.mu.RLock()
		for fd := part; fd < len(t.streams); fd += parts {
			if t.streams[fd].user != "" {
				write(fd, []byte(":\n\n"))
			}
		}
		t.mu.RUnlock()
	}
}
