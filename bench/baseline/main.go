// Command baseline is the straightforward hub that usercast is compared with: net/http, one PSUBSCRIBE user-*, a map of
// users, and per stream a goroutine with a channel and a ticker.
//
// It does not implement ids, replay, limits or authentication. A stream whose channel is full misses messages. Do not use
// it in production.
package main

import (
	"context"
	"flag"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
)

const prefix = "user-"
const waiting = 64 // maximum number of queued messages per stream

// usercast bench recognizes a hub by the name of this metric.
var clients = promauto.NewGauge(prometheus.GaugeOpts{Name: "usercast_clients", Help: "Open streams."})

func main() {
	listen := flag.String("listen", "127.0.0.1:7710", "address of the streams: /events?user=42")
	admin := flag.String("admin", "127.0.0.1:7711", "address of /metrics")
	server := flag.String("redis", "127.0.0.1:6379", "address of Redis")
	ping := flag.Duration("ping", 15*time.Second, "time between pings")
	flag.Parse()

	h := &hub{ping: *ping, users: make(map[string]map[stream]bool)}
	messages := redis.NewClient(&redis.Options{Addr: *server}).PSubscribe(context.Background(), prefix+"*")
	if _, err := messages.Receive(context.Background()); err != nil {
		log.Fatalf("subscribe to Redis: %v", err)
	}
	go func() {
		for m := range messages.Channel() {
			user, _, _ := strings.Cut(strings.TrimPrefix(m.Channel, prefix), ":")
			h.publish(user, m.Payload)
		}
	}()
	http.Handle("/metrics", promhttp.Handler())
	go func() { log.Fatal(http.ListenAndServe(*admin, nil)) }()
	streams := http.NewServeMux()
	streams.HandleFunc("GET /events", h.serve)
	log.Fatal(http.ListenAndServe(*listen, streams))
}

// A stream is a channel of payloads.
type stream chan string

type hub struct {
	ping time.Duration

	mu    sync.RWMutex
	users map[string]map[stream]bool // guarded by mu
}

func (h *hub) publish(user, payload string) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if user != "*" {
		offer(h.users[user], payload)
		return
	}
	for _, streams := range h.users {
		offer(streams, payload)
	}
}

// offer drops the message for streams whose channel is full, because waiting for them would delay all others.
func offer(streams map[stream]bool, payload string) {
	for s := range streams {
		select {
		case s <- payload:
		default:
		}
	}
}

func (h *hub) join(user string, s stream) {
	clients.Inc()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users[user] == nil {
		h.users[user] = make(map[stream]bool)
	}
	h.users[user][s] = true
}

func (h *hub) leave(user string, s stream) {
	clients.Dec()
	h.mu.Lock()
	defer h.mu.Unlock()
	if delete(h.users[user], s); len(h.users[user]) == 0 {
		delete(h.users, user)
	}
}

func (h *hub) serve(w http.ResponseWriter, r *http.Request) {
	s, user := make(stream, waiting), r.FormValue("user")
	h.join(user, s)
	defer h.leave(user, s)
	ticker := time.NewTicker(h.ping)
	defer ticker.Stop()

	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	for text, flush := ":\n\n", http.NewResponseController(w); ; {
		if _, err := io.WriteString(w, text); err != nil || flush.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-ticker.C:
			text = ":\n\n"
		case payload := <-s:
			text = "data: " + strings.ReplaceAll(payload, "\n", "\ndata: ") + "\n\n"
		}
	}
}
