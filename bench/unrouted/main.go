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
	what := flag.String("what", "egress", "egress: Redis with 1 … subscribers; hub: hubs that hear messages for nobody")
	feed := flag.String("feed", "pubsub", "of the hubs")
	program := flag.String("hub", "bin/usercast", "the hub's program")
	counts := flag.String("n", "1,2,4,8,16", "how many subscribers, or hubs")
	rates := flag.String("rates", "1000,10000,0", "messages a second; 0: as many as go through")
	connections := flag.Int("connections", 8, "that publish. What comes over several at the same time Redis passes on in one write for each subscriber")
	size := flag.Int("payload", 200, "bytes of a payload")
	length := flag.Duration("for", 3*time.Second, "for how long each")
	port := flag.Int("port", 7800, "first of the ports")
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
		fmt.Println("| asked for, /s | subscribers | PUBLISH/s | Redis: CPU µs a PUBLISH | Redis: % of a core | bytes a message and subscriber |\n|---|---|---|---|---|---|")
		each(m.egress)
	case "hub":
		fmt.Println("| asked for, /s | hubs | messages/s | hub: CPU µs a message | hub: % of a core | Redis: CPU µs a message | behind at the end | link |\n|---|---|---|---|---|---|---|---|")
		each(m.hubs)
	default:
		err = fmt.Errorf("there is no -what %s", *what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "foreign:", err)
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

// measurement is where the processes are, and where the rows go.
type measurement struct {
	out     io.Writer
	program string
	port    int
}

func (m measurement) addr(i int) string { return fmt.Sprintf("127.0.0.1:%d", m.port+i) }

// egress is one row: Redis and n subscribers that do nothing but read.
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
	if err := await("all subscribers have all", func() bool { return all.bytes.Load() >= want }); err != nil {
		return err
	}
	fmt.Fprintf(m.out, "| %d | %d | %.0f | %.1f | %.0f | %.1f |\n", l.rate, n, float64(sent)/took.Seconds(),
		micros(used, sent), 100*used.Seconds()/took.Seconds(), float64(all.bytes.Load())/float64(sent*n))
	return nil
}

// hubs is one row: n hubs without a stream.
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
	took, link := time.Since(begun), "stood"
	end := time.Now()
	for _, h := range hubs {
		var received float64
		err := await("a hub has received all", func() bool {
			received, err = h.metric("usercast_messages_received_total")
			return err != nil || received >= float64(sent)
		})
		if err != nil {
			link = fmt.Sprintf("%.0f of %d received", received, sent)
		}
	}
	behind := time.Since(end)
	hubUsed, redisUsed := cpu()-hubBefore, redis.cpu()-redisBefore
	fmt.Fprintf(m.out, "| %d | %d | %.0f | %.1f | %.0f | %.1f | %.2f s | %s |\n", l.rate, n, float64(sent)/took.Seconds(),
		micros(hubUsed, sent*n), 100*hubUsed.Seconds()/float64(n)/(took+behind).Seconds(), micros(redisUsed, sent), behind.Seconds(), link)
	return nil
}

func micros(d time.Duration, n int) float64 { return float64(d.Microseconds()) / float64(max(n, 1)) }
