//go:build linux

// Command lowerbound is the minimum that a hub has to do, which usercast is compared with: one epoll, one table entry per
// stream, one write(2) per delivery; no goroutine, buffer or timer per stream.
//
// It has no queue: a client that does not accept a whole frame immediately is dropped. It has no ids, replay, limits or
// authentication. Do not use it in production.
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
	writers := flag.Int("writers", 0, "goroutines that share the users; 0: the one that reads Redis writes")
	flag.Parse()

	t := &table{seed: maphash.MakeSeed(), users: make(map[string][]int)}
	for i := range *writers {
		jobs := make(chan job, 1024) // a burst; past it Redis has to wait
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

// By its name usercast bench knows a hub.
var clients = promauto.NewGauge(prometheus.GaugeOpts{Name: "usercast_clients", Help: "Open streams."})

// A table is all streams. A descriptor is closed under the write lock alone:
// whoever holds the read lock writes to the stream that it means.
type table struct {
	seed    maphash.Seed // immutable
	writers []chan job   // immutable; each has users of its own

	mu      sync.RWMutex
	streams []stream         // by descriptor; grows where one is opened
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

// publish delivers a message, or hands it to the user's writer: one writer a user
// keeps the order, of broadcasts too.
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

// deliver writes a frame to a user's streams, or to all that are a writer's.
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

// write shuts a stream down that does not take the frame; the epoll hears of that.
func write(fd int, frame []byte) {
	if n, err := unix.Write(fd, frame); n < len(frame) || err != nil {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR) // it may be down already
	}
}

// sweep pings each stream once an interval, a part of them at a time.
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
