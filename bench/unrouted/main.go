package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

func main() {
	what := flag.String("what", "egress", "egress: Redis, by the number of subscribers; hub: hubs that receive messages without having streams for them")
	feed := flag.String("feed", "pubsub", "feed of the hubs: pubsub or stream")
	program := flag.String("hub", "bin/usercast", "path of usercast")
	counts := flag.String("n", "1,2,4,8,16", "numbers of subscribers or hubs")
	rates := flag.String("rates", "1000,10000,0", "messages per second; 0 means as many as possible")
	connections := flag.Int("connections", 8, "number of publishing connections. Redis combines concurrent messages of several connections into one write per subscriber")
	size := flag.Int("payload", 200, "payload size in bytes")
	length := flag.Duration("for", 3*time.Second, "duration of each measurement")
	port := flag.Int("port", 7800, "first port on 127.0.0.1")
	flag.Parse()
	var err error
	each := func(measure func(n int, l load) error) {
		for _, rate := range numbers(*rates, &err) {
			for _, n := range numbers(*counts, &err) {
				l := load{feed: *feed, rate: rate, connections: *connections, outstanding: 64, payload: strings.Repeat("x", *size), length: *length}
				if err == nil {
					err = measure(n, l)
				}
			}
		}
	}
	m := measurement{out: os.Stdout, program: *program, port: *port}
	switch *what {
	case "egress":
		fmt.Println("| configured rate, /s | subscribers | PUBLISH/s | Redis: CPU µs per PUBLISH | Redis: % of a core | bytes per message and subscriber |\n|---|---|---|---|---|---|")
		each(m.egress)
	case "hub":
		fmt.Println("| configured rate, /s | hubs | messages/s | hub: CPU µs per message | hub: % of a core | Redis: CPU µs per message | lag at the end | messages received |\n|---|---|---|---|---|---|---|---|")
		each(m.hubs)
	default:
		err = fmt.Errorf("-what must be egress or hub, not %s", *what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "unrouted:", err)
		os.Exit(1)
	}
}

func numbers(list string, err *error) (all []int) {
	for s := range strings.SplitSeq(list, ",") {
		n, e := strconv.Atoi(s)
		if e != nil {
			*err = e
		}
		all = append(all, n)
	}
	return all
}

// A measurement starts processes and writes rows.
type measurement struct {
	out     io.Writer
	program string
	port    int
}

func (m measurement) addr(i int) string { return fmt.Sprintf("127.0.0.1:%d", m.port+i) }

// egress writes a row for Redis with n subscribers that only read.
func (m measurement) egress(n int, l load) error {
	redis, err := startRedis(m.addr(0))
	if err != nil {
		return err
	}
	defer redis.stop()
	all, err := subscribe(m.addr(0), n)
	if err != nil {
		return err
	}
	defer all.close()
	before, begun := redis.cpu(), time.Now()
	sent, err := l.publish(m.addr(0))
	if err != nil {
		return err
	}
	used, took := redis.cpu()-before, time.Since(begun)
	want := int64(sent * n * wireBytes("user-*", "user-0000000:activity", l.payload))
	if err := await("all subscribers to receive all messages", func() bool { return all.bytes.Load() >= want }); err != nil {
		return err
	}
	fmt.Fprintf(m.out, "| %d | %d | %.0f | %.1f | %.0f | %.1f |\n", l.rate, n, float64(sent)/took.Seconds(),
		micros(used, sent), 100*used.Seconds()/took.Seconds(), float64(all.bytes.Load())/float64(sent*n))
	return nil
}

// hubs writes a row for n hubs without streams.
func (m measurement) hubs(n int, l load) error {
	redis, err := startRedis(m.addr(0))
	if err != nil {
		return err
	}
	defer redis.stop()
	var hubs []hub
	for i := range n {
		h, err := startHub(m.program, m.addr(0), l.feed, m.addr(1+2*i), m.addr(2+2*i))
		if err != nil {
			return err
		}
		defer h.stop()
		hubs = append(hubs, h)
	}
	cpu := func() (sum time.Duration) {
		for _, h := range hubs {
			sum += h.cpu()
		}
		return sum
	}
	hubBefore, redisBefore, begun := cpu(), redis.cpu(), time.Now()
	sent, err := l.publish(m.addr(0))
	if err != nil {
		return err
	}
	took, result := time.Since(begun), "all"
	end := time.Now()
	for _, h := range hubs {
		var received float64
		err := await("a hub to receive all messages", func() bool {
			received, err = h.metric("usercast_messages_received_total")
			return err != nil || received >= float64(sent)
		})
		if err != nil {
			result = fmt.Sprintf("%.0f of %d received", received, sent)
		}
	}
	behind := time.Since(end)
	hubUsed, redisUsed := cpu()-hubBefore, redis.cpu()-redisBefore
	fmt.Fprintf(m.out, "| %d | %d | %.0f | %.1f | %.0f | %.1f | %.2f s | %s |\n", l.rate, n, float64(sent)/took.Seconds(),
		micros(hubUsed, sent*n), 100*hubUsed.Seconds()/float64(n)/(took+behind).Seconds(), micros(redisUsed, sent), behind.Seconds(), result)
	return nil
}

func micros(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(max(n, 1)) }
