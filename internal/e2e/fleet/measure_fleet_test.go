//go:build measure

package fleet

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// What one stream costs a hub: the constants of docs/scaling.md.
func TestMeasureCostOfAStream(t *testing.T) {
	const streams, rate, phase = 9000, 5000, 10 * time.Second
	server := redistest.Start(t)
	hub, public, _ := hubtest.Serve(t, server, nil, "--ping-interval", "2s")
	memory, slab := residentKiB(t, hub), numberIn(t, "/proc/meminfo", "Slab:")
	cpu := cpuTime(t, hub)
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
	connecting := cpuTime(t, hub) - cpu
	t.Logf("CPU µs a connect: %.0f", float64(connecting.Microseconds())/streams)
	time.Sleep(3 * time.Second) // until the garbage of connecting is given back
	t.Logf("resident KiB a stream: %.2f", float64(residentKiB(t, hub)-memory)/streams)
	t.Logf("KiB of kernel memory a stream, for both ends of it and of all that runs here: %.1f", float64(numberIn(t, "/proc/meminfo", "Slab:")-slab)/streams)
	cpu = cpuTime(t, hub)
	time.Sleep(phase)
	// Pings come up to a tenth early.
	t.Logf("CPU µs a ping: %.1f", float64((cpuTime(t, hub)-cpu).Microseconds())/(streams*phase.Seconds()/1.9))
	idle := cpuTime(t, hub) - cpu

	app := hubtest.NewPublisher(t, server.Addr())
	cpu = cpuTime(t, hub)
	begun, sent := time.Now(), 0
	for ; time.Since(begun) < phase; time.Sleep(time.Millisecond) {
		due := int(time.Since(begun).Seconds() * rate)
		if n := due - sent; n > 0 {
			app.Burst(t, n, func(i int) (string, string) {
				return fmt.Sprintf("user-%d:activity", (sent+i)%streams), strings.Repeat("x", 200)
			})
		}
		sent = due
	}
	t.Logf("CPU µs a delivery of 200 bytes, at %d a second: %.1f (pings taken off)", rate, float64((cpuTime(t, hub)-cpu-idle).Microseconds())/float64(sent))
}

// A crowd that comes back, to compare with bench/reconnectsim: 3,000 pages at one hub that
// is killed and started again, whose Redis is, and that is drained with no other
// hub to go to.
func TestMeasureStormOfThreeThousand(t *testing.T) {
	const streams = 3000
	server := redistest.Start(t)
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(t)))
	serve := func() *hubtest.Program {
		p, _, _ := hubtest.Serve(t, server, nil, "--listen", listen)
		return p
	}
	hub := serve()
	crowd := crowd{addr: listen, stop: make(chan struct{})}
	for i := range streams {
		crowd.running.Go(func() { crowd.visit(i) })
	}
	t.Cleanup(func() {
		close(crowd.stop)
		crowd.running.Wait()
	})
	hubtest.Eventually(t, "all pages are there", func() bool { return crowd.here.Load() == streams })

	crowd.begin()
	hub.Signal(syscall.SIGKILL)
	<-hub.Exited
	hub = serve()
	ready := time.Since(crowd.start)
	hubtest.Eventually(t, "all pages are back", func() bool { return crowd.count("gap") == streams })
	t.Logf("kill -9, the next process was ready after %v", ready.Round(time.Millisecond))
	crowd.tell(t, "connect", "attempts")
	crowd.tell(t, "gap", "back, and told of the gap")

	crowd.begin()
	server.Kill()
	time.Sleep(2 * time.Second)
	server.Restart()
	crowd.begin() // times count from Redis's return
	hubtest.Eventually(t, "all pages were told", func() bool { return crowd.count("gap") == streams })
	t.Log("Redis away for 2 s")
	crowd.tell(t, "gap", "told of the gap")

	crowd.begin()
	hub.Signal(syscall.SIGTERM)
	<-hub.Exited
	serve()
	hubtest.Within(t, 2*hubtest.Patience, "all pages are back", func() bool { return crowd.here.Load() == streams })
	t.Log("drained and started again")
	crowd.tell(t, "busy", "told busy")
	crowd.tell(t, "back", "back, each since its own end")
}

// A crowd is pages that come back as browsers do, and when what happened to them.
type crowd struct {
	addr    string
	stop    chan struct{}
	running sync.WaitGroup
	here    atomic.Int64

	mu       sync.Mutex
	start    time.Time
	happened map[string][]time.Duration
}

func (c *crowd) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start, c.happened = time.Now(), map[string][]time.Duration{}
}

// note is noteAfter the beginning.
func (c *crowd) note(what string) { c.noteAfter(what, time.Time{}) }

// noteAfter notes what happened, and how long after a time.
func (c *crowd) noteAfter(what string, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.happened != nil {
		if since.IsZero() {
			since = c.start
		}
		c.happened[what] = append(c.happened[what], time.Since(since))
	}
}

func (c *crowd) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.happened[what])
}

func (c *crowd) tell(t *testing.T, what, words string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.happened[what]
	slices.Sort(all)
	most := 0
	for i, at := range all {
		n, _ := slices.BinarySearch(all, at+time.Second)
		most = max(most, n-i)
	}
	t.Logf("%s: %d, p50 %.1f s, p99 %.1f s, all %.1f s; most in a second %d", words, len(all),
		all[len(all)/2].Seconds(), all[len(all)*99/100].Seconds(), all[len(all)-1].Seconds(), most)
}

// visit is one page, for as long as the test runs.
func (c *crowd) visit(user int) {
	var (
		lastID string
		retry  = 3 * time.Second
		ended  time.Time
	)
	for {
		c.note("connect")
		p, err := ssetest.Request(c.addr, fmt.Sprintf("user=%d", user), "Last-Event-ID: "+lastID)
		if err == nil {
			p.LastID, p.Retry = lastID, retry
			p.Conn.SetDeadline(time.Time{})
			gone := make(chan struct{})
			c.running.Go(func() {
				select {
				case <-c.stop:
				case <-gone:
				}
				p.Close()
			})
			if c.read(p, ended) {
				ended = time.Now()
			}
			close(gone)
			lastID, retry = p.LastID, p.Retry
		}
		select {
		case <-c.stop:
			return
		case <-time.After(retry):
		}
	}
}

// read reads an answer to its end, and reports whether it was a stream.
func (c *crowd) read(p *ssetest.Stream, ended time.Time) (stream bool) {
	for {
		e, fires, err := p.Block()
		switch {
		case err != nil:
			if stream {
				c.here.Add(-1)
			}
			return stream
		case fires:
			c.note(e.Type)
		case !stream: // the opening
			stream = true
			c.here.Add(1)
			c.noteAfter("back", ended)
		}
	}
}

// cpuTime is what the program has used, in user and in kernel mode.
func cpuTime(t *testing.T, p *hubtest.Program) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	kernel, _ := strconv.Atoi(fields[12])
	return time.Duration(user+kernel) * 10 * time.Millisecond // USER_HZ is 100 on Linux
}

// residentKiB is what the program holds in memory.
func residentKiB(t *testing.T, p *hubtest.Program) int {
	t.Helper()
	return numberIn(t, fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid), "VmRSS:")
}

// numberIn is the number behind a name in a file.
func numberIn(t *testing.T, file, name string) (n int) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name)
	fmt.Sscan(rest, &n)
	return n
}
