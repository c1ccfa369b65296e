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

// Measures the resources per stream: the constants of docs/scaling.md.
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
	t.Logf("CPU µs per connect: %.0f", float64(connecting.Microseconds())/streams)
	time.Sleep(3 * time.Second) // until the memory of connecting is released
	t.Logf("resident KiB per stream: %.2f", float64(residentKiB(t, hub)-memory)/streams)
	t.Logf("KiB of kernel memory per stream, for both ends and including other processes: %.1f", float64(numberIn(t, "/proc/meminfo", "Slab:")-slab)/streams)
	cpu = cpuTime(t, hub)
	time.Sleep(phase)
	// Pings are sent up to a tenth early.
	t.Logf("CPU µs per ping: %.1f", float64((cpuTime(t, hub)-cpu).Microseconds())/(streams*phase.Seconds()/1.9))
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
	t.Logf("CPU µs per delivery of 200 bytes, at %d per second: %.1f (without pings)", rate, float64((cpuTime(t, hub)-cpu-idle).Microseconds())/float64(sent))
}

// Measures how 3,000 pages of one hub reconnect, to compare with bench/reconnectsim: the hub is killed and restarted,
// Redis is killed and restarted, and the hub is drained without another hub to connect to.
func TestMeasureReconnectStorm(t *testing.T) {
	const streams = 3000
	server := redistest.Start(t)
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(redistest.FreePort(t)))
	serve := func() *hubtest.Program {
		p, _, _ := hubtest.Serve(t, server, nil, "--listen", listen)
		return p
	}
	hub := serve()
	pages := pageGroup{addr: listen, stop: make(chan struct{})}
	for i := range streams {
		pages.running.Go(func() { pages.visit(i) })
	}
	t.Cleanup(func() {
		close(pages.stop)
		pages.running.Wait()
	})
	hubtest.Eventually(t, "all pages are connected", func() bool { return pages.here.Load() == streams })

	pages.begin()
	hub.Signal(syscall.SIGKILL)
	<-hub.Exited
	hub = serve()
	ready := time.Since(pages.start)
	hubtest.Eventually(t, "all pages have reconnected", func() bool { return pages.count("gap") == streams })
	t.Logf("kill -9, the new process was ready after %v", ready.Round(time.Millisecond))
	pages.report(t, "connect", "attempts")
	pages.report(t, "gap", "reconnected and received a gap")

	pages.begin()
	server.Kill()
	time.Sleep(2 * time.Second)
	server.Restart()
	pages.begin() // times count from the restart of Redis
	hubtest.Eventually(t, "all pages have received a gap", func() bool { return pages.count("gap") == streams })
	t.Log("Redis down for 2 s")
	pages.report(t, "gap", "received a gap")

	pages.begin()
	hub.Signal(syscall.SIGTERM)
	<-hub.Exited
	serve()
	hubtest.Within(t, 2*hubtest.Patience, "all pages have reconnected", func() bool { return pages.here.Load() == streams })
	t.Log("drained and restarted")
	pages.report(t, "busy", "received busy")
	pages.report(t, "back", "reconnected, time since the end of the page's stream")
}

// A pageGroup is a set of pages that reconnect as browsers do, and records the times of their events.
type pageGroup struct {
	addr    string
	stop    chan struct{}
	running sync.WaitGroup
	here    atomic.Int64

	mu       sync.Mutex
	start    time.Time
	happened map[string][]time.Duration
}

func (c *pageGroup) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.start, c.happened = time.Now(), map[string][]time.Duration{}
}

// note records an event with the time since begin.
func (c *pageGroup) note(what string) { c.noteAfter(what, time.Time{}) }

// noteAfter records an event with the time since a given time.
func (c *pageGroup) noteAfter(what string, since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.happened != nil {
		if since.IsZero() {
			since = c.start
		}
		c.happened[what] = append(c.happened[what], time.Since(since))
	}
}

func (c *pageGroup) count(what string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.happened[what])
}

func (c *pageGroup) report(t *testing.T, what, words string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.happened[what]
	slices.Sort(all)
	most := 0
	for i, at := range all {
		n, _ := slices.BinarySearch(all, at+time.Second)
		most = max(most, n-i)
	}
	t.Logf("%s: %d, p50 %.1f s, p99 %.1f s, all %.1f s; most in one second %d", words, len(all),
		all[len(all)/2].Seconds(), all[len(all)*99/100].Seconds(), all[len(all)-1].Seconds(), most)
}

// visit runs one page until the end of the test.
func (c *pageGroup) visit(user int) {
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

// read reads a response to its end, and reports whether it was a stream.
func (c *pageGroup) read(p *ssetest.Stream, ended time.Time) (stream bool) {
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
		case !stream: // the opening block
			stream = true
			c.here.Add(1)
			c.noteAfter("back", ended)
		}
	}
}

// cpuTime returns the CPU time of the program, in user and in kernel mode.
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

// residentKiB returns the resident memory of the program.
func residentKiB(t *testing.T, p *hubtest.Program) int {
	t.Helper()
	return numberIn(t, fmt.Sprintf("/proc/%d/status", p.Cmd.Process.Pid), "VmRSS:")
}

// numberIn returns the number after a name in a file.
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
