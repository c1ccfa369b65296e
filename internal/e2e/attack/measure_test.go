//go:build measure

package attack

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// Measures the latency of 5,000 streams in turn with and without 100 stalled readers, because the speed
// of the machine varies. The same messages are published in both phases: without the stalled
// readers, their messages have no recipient.
func TestMeasureFiveThousandStreamsWithStalledReaders(t *testing.T) {
	const (
		streams, rate           = 5000, 5000
		stalled, large, perUser = 100, 10_000, 10 // readers, bytes per message, messages per second to each
		pairs, phase            = 5, 5 * time.Second
		most                    = 1.5
	)
	server := redistest.Start(t)
	hub, public, private := hubtest.Serve(t, server, nil, "--queue-bytes", "128KiB", "--send-buffer", "16KiB", "--max-clients-per-user", "0")
	start := time.Now()

	var latencies latencies
	var ended atomic.Int64
	pages := make([]*ssetest.Stream, streams)
	t.Cleanup(func() {
		for _, p := range pages {
			p.Close()
		}
	})
	hubtest.Each(t, streams, func(i int) (err error) {
		pages[i], err = ssetest.Open(public, fmt.Sprintf("user=%d", i))
		return err
	})
	for _, p := range pages {
		p.Conn.SetReadDeadline(time.Time{})
		go func() {
			for {
				e, _, err := p.Block()
				if err != nil {
					ended.Add(1)
					return
				}
				if sent, err := strconv.ParseInt(e.Data, 10, 64); err == nil {
					latencies.add(time.Since(start) - time.Duration(sent))
				}
			}
		}()
	}

	stop, publishing := make(chan struct{}), sync.WaitGroup{}
	payload := strings.Repeat("x", large)
	pace := func(perSecond int, message func() (channel, payload string)) {
		conn, err := net.Dial("tcp", server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(io.Discard, conn)
		publishing.Go(func() {
			defer conn.Close()
			w := bufio.NewWriter(conn)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for begun, sent := time.Now(), 0; ; w.Flush() {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				for due := int(time.Since(begun).Seconds() * float64(perSecond)); sent < due; sent++ {
					channel, payload := message()
					io.WriteString(w, hubtest.RedisCommand("PUBLISH", channel, payload))
				}
			}
		})
	}
	pace(rate, func() (string, string) {
		return fmt.Sprintf("user-%d", rand.IntN(streams)), strconv.FormatInt(int64(time.Since(start)), 10)
	})
	pace(stalled*perUser, func() (string, string) { return fmt.Sprintf("user-s%d", rand.IntN(stalled)), payload })
	defer publishing.Wait()
	defer close(stop)

	slow := func() float64 {
		return hubtest.Scrape(t, private).ByReason("usercast_disconnects_total", "slow")
	}
	var without, with []time.Duration
	measure := func() time.Duration {
		time.Sleep(phase / 4) // until the load is steady
		latencies.take()
		time.Sleep(phase)
		all := latencies.take()
		if len(all) < int(phase.Seconds()*rate*9/10) {
			t.Fatalf("%d messages in %v: the machine is too slow for %d per second", len(all), phase, rate)
		}
		slices.Sort(all)
		p99 := all[len(all)*99/100]
		t.Logf("%d messages: p50 %v, p90 %v, p99 %v, max %v; %v ended as slow so far", len(all), all[len(all)/2], all[len(all)*9/10], p99, all[len(all)-1], slow())
		return p99
	}
	for range pairs {
		without = append(without, measure())
		leave := stallers(t, hub, public, stalled)
		before := slow()
		with = append(with, measure())
		if n := slow() - before; n < stalled {
			t.Errorf("%v of %d stalled readers were ended in a phase: some did not stall", n, stalled)
		}
		leave()
	}
	if n := ended.Load(); n > 0 {
		t.Errorf("%d healthy streams were ended", n)
	}
	slices.Sort(without)
	slices.Sort(with)
	ratio := float64(with[pairs/2]) / float64(without[pairs/2])
	t.Logf("median p99 without %v %v, with %v %v: × %.2f", without[pairs/2], without, with[pairs/2], with, ratio)
	if ratio > most {
		t.Errorf("the p99 with stalled readers is %.2f × that without, want at most %.1f ×", ratio, most)
	}
}

// stallers opens streams of the users s0 to s<n-1> that do not read. It reopens each when
// the hub's log says that it ended, because the client itself cannot detect that.
func stallers(t *testing.T, p *hubtest.Program, addr string, n int) (leave func()) {
	open := make([]*ssetest.Stream, n)
	stall := func(i int) error {
		if open[i] != nil {
			open[i].Close()
		}
		conn, err := hubtest.DialSmall(addr, 2048)
		if err == nil {
			open[i], err = ssetest.OpenOn(conn, fmt.Sprintf("user=s%d", i))
		}
		return err
	}
	known := len(p.Stderr.Lines("reason=slow"))
	hubtest.Each(t, n, stall)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			ended := p.Stderr.Lines("reason=slow")
			for _, line := range ended[known:] {
				var i int
				_, user, _ := strings.Cut(line, " user=")
				if _, err := fmt.Sscanf(user, "s%d", &i); err != nil {
					t.Errorf("a healthy stream was ended: %s", line)
				} else if err := stall(i); err != nil {
					t.Error(err)
				}
			}
			known = len(ended)
		}
	}()
	return func() {
		close(stop)
		<-done
		for _, p := range open {
			p.Close()
		}
	}
}

// latencies collects the latencies of messages since the previous call of take.
type latencies struct {
	mu  sync.Mutex
	all []time.Duration
}

func (l *latencies) add(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, d)
}

func (l *latencies) take() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = make([]time.Duration, 0, len(all)+len(all)/8)
	return all
}
