//go:build measure

package sse

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"usercast/auth"
	"usercast/hub"
)

// TestMeasureMillion measures the cost of more streams than this machine has file descriptors for: everything
// between the feed and the socket, with the defaults of the program. memoryConns replace the sockets, and this
// test replaces the feed. The results do not include requests, authentication, the kernel and Redis.
//
// Environment variables: MILLION_STREAMS (list of numbers of streams; default: 1000,10000), MILLION_PHASE
// (duration of a phase; default: 1s) and MILLION_CSV (file for the rows; default: none).
func TestMeasureMillion(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(200)) // as cmd/usercast does
	phase, err := time.ParseDuration(environment("MILLION_PHASE", "1s"))
	if err != nil {
		t.Fatal(err)
	}
	rows := [][]string{{}}
	for _, column := range millionColumns {
		rows[0] = append(rows[0], column.name)
	}
	for list := range strings.SplitSeq(environment("MILLION_STREAMS", "1000,10000"), ",") {
		n, err := strconv.Atoi(list)
		if err != nil {
			t.Fatal(err)
		}
		f := measureStreams(t, n, phase)
		if t.Failed() {
			return
		}
		rows = append(rows, nil)
		for _, column := range millionColumns {
			rows[len(rows)-1] = append(rows[len(rows)-1], strconv.FormatFloat(column.of(f), 'f', column.decimals, 64))
		}
		t.Log(f)
	}
	if file := os.Getenv("MILLION_CSV"); file != "" {
		var text bytes.Buffer
		csv.NewWriter(&text).WriteAll(rows)
		if err := os.WriteFile(file, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func environment(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// The load is that of TestMeasureCostOfAStream.
const (
	millionRate    = 5000 // messages per second
	millionPayload = 200  // bytes
	outstanding    = 512  // messages in flight in the closed loop
	broadcasts     = 3
)

// figures are the results for a number of streams. CPU is user and system time of the whole process,
// including the publisher and the checks of the messages.
type figures struct {
	streams                  int
	heap, resident           float64       // bytes per stream: heap and stacks in use; resident memory
	connect, connectSeconds  float64       // CPU seconds; elapsed seconds
	unrouted                 float64       // CPU seconds per message for a user without a stream, at millionRate
	delivery                 float64       // CPU seconds per delivery, at millionRate
	p50, p99                 time.Duration // from the time when a message was due until it was written
	busyP99                  time.Duration // the same while all streams are pinged, with one garbage collection
	closed, closedRate       float64       // closed loop: CPU seconds per delivery; deliveries per second
	ping                     float64       // CPU seconds
	broadcast                float64       // CPU seconds per delivery
	last                     time.Duration // median time from a broadcast until the last stream has received it
	drain, drainSeconds      float64       // CPU seconds per stream; elapsed seconds
	lost, wrong, leftStreams int64
}

// millionColumns are explained in bench/README.md.
var millionColumns = []struct {
	name     string
	decimals int
	of       func(figures) float64
}{
	{"streams", 0, func(f figures) float64 { return float64(f.streams) }},
	{"heap_and_stack_bytes_per_stream", 0, func(f figures) float64 { return f.heap }},
	{"rss_bytes_per_stream", 0, func(f figures) float64 { return f.resident }},
	{"connect_cpu_us", 2, func(f figures) float64 { return f.connect * 1e6 }},
	{"connects_per_s", 0, func(f figures) float64 { return float64(f.streams) / f.connectSeconds }},
	{"nobody_cpu_us", 2, func(f figures) float64 { return f.unrouted * 1e6 }},
	{"delivery_cpu_us", 2, func(f figures) float64 { return f.delivery * 1e6 }},
	{"delivery_p50_ms", 3, func(f figures) float64 { return milliseconds(f.p50) }},
	{"delivery_p99_ms", 3, func(f figures) float64 { return milliseconds(f.p99) }},
	{"busy_delivery_p99_ms", 3, func(f figures) float64 { return milliseconds(f.busyP99) }},
	{"closed_delivery_cpu_us", 2, func(f figures) float64 { return f.closed * 1e6 }},
	{"closed_deliveries_per_s", 0, func(f figures) float64 { return f.closedRate }},
	{"ping_cpu_us", 2, func(f figures) float64 { return f.ping * 1e6 }},
	{"broadcast_delivery_cpu_us", 2, func(f figures) float64 { return f.broadcast * 1e6 }},
	{"broadcast_last_stream_ms", 1, func(f figures) float64 { return milliseconds(f.last) }},
	{"drain_cpu_us_per_stream", 2, func(f figures) float64 { return f.drain * 1e6 }},
	{"drain_seconds", 2, func(f figures) float64 { return f.drainSeconds }},
	{"lost", 0, func(f figures) float64 { return float64(f.lost) }},
	{"doubled_late_or_foreign", 0, func(f figures) float64 { return float64(f.wrong) }},
	{"streams_left", 0, func(f figures) float64 { return float64(f.leftStreams) }},
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }

func (f figures) String() string {
	return fmt.Sprintf("%d streams: %.0f B of heap and stacks each, %.0f B resident; CPU µs: connect %.1f, delivery %.1f (without a stream %.1f, closed loop %.2f at %.0f/s), ping %.2f, broadcast %.2f, end %.2f; p99 %v, with pings and collection %v; broadcast to the last %v; drained in %.1f s; %d lost, %d duplicated, out of order or for another user",
		f.streams, f.heap, f.resident, f.connect*1e6, f.delivery*1e6, f.unrouted*1e6, f.closed*1e6, f.closedRate, f.ping*1e6, f.broadcast*1e6, f.drain*1e6,
		f.p99.Round(time.Microsecond), f.busyP99.Round(time.Microsecond), f.last.Round(time.Millisecond), f.drainSeconds, f.lost, f.wrong)
}

// measureStreams opens n streams twice: first without pings, which would be part of all results, and then
// with pings.
func measureStreams(t *testing.T, n int, phase time.Duration) figures {
	f := figures{streams: n}
	quiet := newMemoryStreams(t, n, time.Hour)
	quiet.connect(&f)
	f.unrouted, _ = quiet.rate(phase, func() uint32 { return uint32(n) })
	var latencies []time.Duration
	f.delivery, latencies = quiet.rate(phase, quiet.anybody)
	f.p50, f.p99 = latencies[len(latencies)/2], latencies[len(latencies)*99/100]
	quiet.flatOut(phase, &f)
	quiet.broadcast(&f)
	quiet.drain(phase, &f)

	pinged := newMemoryStreams(t, n, 3*phase)
	pinged.connect(new(figures))
	pinged.sweep(3*phase, &f)
	collected := time.AfterFunc(phase/2, runtime.GC)
	_, latencies = pinged.rate(phase, pinged.anybody)
	collected.Stop()
	f.busyP99 = latencies[len(latencies)*99/100]
	pinged.drain(0, &f)
	return f
}

// A memoryStreams is a hub and streams whose peers are in memory.
type memoryStreams struct {
	t          *testing.T
	hub        *hub.PubSub
	handler    *Handler
	peers      *peers
	conns      []*memoryConn
	sent       []uint32 // messages per user; the last user does not have a stream
	sentToAll  uint32
	messages   int64 // to users
	unrouted   int64 // of these, to the user without a stream
	goroutines int   // before the start
}

// newMemoryStreams creates the hub as cmd/usercast does.
func newMemoryStreams(t *testing.T, n int, ping time.Duration) *memoryStreams {
	c := &memoryStreams{t: t, goroutines: runtime.NumGoroutine(), conns: make([]*memoryConn, n), sent: make([]uint32, n+1)}
	c.peers = &peers{reached: make(chan struct{}, 1), began: time.Now()}
	c.hub = hub.NewPubSub(hub.Config{Encode: EncodeEntry, BroadcastUser: "*"})
	c.handler = New(Config{
		Hub: c.hub.Hub, Authenticate: auth.Insecure, PingInterval: ping,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return c
}

// connect opens the streams as Handler.serve does.
func (c *memoryStreams) connect(f *figures) {
	before := memoryInUse(c.t)
	clock, cpu := time.Now(), processorTime(c.t)
	for i := range c.conns {
		c.open(i)
	}
	f.connect = (processorTime(c.t) - cpu).Seconds() / float64(len(c.conns))
	f.connectSeconds = time.Since(clock).Seconds()
	after := memoryInUse(c.t)
	f.heap = (after.heap - before.heap) / float64(len(c.conns))
	f.resident = (after.resident - before.resident) / float64(len(c.conns))
	if got := c.hub.Stats().Clients; got != len(c.conns) {
		c.t.Errorf("%d clients, want %d", got, len(c.conns))
	}
}

func (c *memoryStreams) open(i int) {
	h := c.handler
	remote := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 40000)
	s := newStream(h, &http.Request{RemoteAddr: remote.String()}, query{}, time.Time{})
	h.count(+1)
	var err error
	if s.client, err = c.hub.Register(query{}.options(strconv.Itoa(i), nil, s)); err != nil {
		c.t.Fatal(err)
	}
	w := &memoryConn{peers: c.peers, user: uint32(i)}
	c.conns[i] = w
	header := http.Header{}
	setHead(header)
	if cause := writeHead(w, header, s.opening(query{})); cause != 0 {
		c.t.Fatal(cause)
	}
	s.start(w)
}

// anybody returns a random user.
func (c *memoryStreams) anybody() uint32 { return rand.Uint32N(uint32(len(c.conns))) }

// publish sends a message to a user.
func (c *memoryStreams) publish(user, item uint32) {
	c.sent[user]++
	c.messages++
	if c.hub.Publish(hub.User(strconv.Itoa(int(user))), "activity", stamp{user, c.sent[user], item}.payload(millionPayload)) == 0 {
		c.unrouted++
	}
}

// rate publishes millionRate messages per second to the users that choice returns. It returns the CPU
// seconds per message and the sorted latencies.
func (c *memoryStreams) rate(phase time.Duration, choice func() uint32) (cpu float64, latencies []time.Duration) {
	p := c.peers
	n := int(phase.Seconds() * millionRate)
	p.due, p.late = make([]time.Duration, n), make([]time.Duration, n)
	begun, before := time.Since(p.began), processorTime(c.t)
	for i := range p.due {
		p.due[i] = begun + time.Duration(i)*time.Second/millionRate
	}
	for i := 0; i < n; {
		time.Sleep(p.due[i] - time.Since(p.began))
		c.handler.Cork() // as the feed does
		for ; i < n && p.due[i] <= time.Since(p.began); i++ {
			c.publish(choice(), uint32(i))
		}
		c.handler.Uncork()
	}
	c.settle()
	cpu = (processorTime(c.t) - before).Seconds() / float64(n)
	slices.Sort(p.late)
	return cpu, p.late
}

// flatOut publishes as fast as possible with outstanding messages in flight.
func (c *memoryStreams) flatOut(phase time.Duration, f *figures) {
	const atOnce = outstanding / 4
	delivered, clock, cpu := c.peers.delivered.Load(), time.Now(), processorTime(c.t)
	for time.Since(clock) < phase {
		c.handler.Cork()
		for range atOnce {
			c.publish(c.anybody(), untimed)
		}
		c.handler.Uncork()
		c.await(c.expected() - outstanding + atOnce)
	}
	c.settle()
	n := float64(c.peers.delivered.Load() - delivered)
	f.closed = (processorTime(c.t) - cpu).Seconds() / n
	f.closedRate = n / time.Since(clock).Seconds()
}

// broadcast publishes broadcasts, one after the other.
func (c *memoryStreams) broadcast(f *figures) {
	var last []time.Duration
	cpu := processorTime(c.t)
	for range broadcasts {
		clock := time.Now()
		c.sentToAll++
		c.hub.Publish(hub.User("*"), "news", stamp{allUsers, c.sentToAll, untimed}.payload(millionPayload))
		c.settle()
		last = append(last, time.Since(clock))
	}
	f.broadcast = (processorTime(c.t) - cpu).Seconds() / float64(broadcasts*len(c.conns))
	slices.Sort(last)
	f.last = last[len(last)/2]
}

// sweep waits until all streams were pinged at least once.
func (c *memoryStreams) sweep(interval time.Duration, f *figures) {
	pings, cpu := c.peers.pings.Load(), processorTime(c.t)
	time.Sleep(interval)
	n := c.peers.pings.Load() - pings
	f.ping = (processorTime(c.t) - cpu).Seconds() / float64(n)
	if n < int64(len(c.conns)) {
		c.t.Errorf("%d pings of %d streams in an interval", n, len(c.conns))
	}
}

// drain ends all streams and the hub, and checks that nothing is left and that no message was lost or
// duplicated.
func (c *memoryStreams) drain(over time.Duration, f *figures) {
	p, n := c.peers, int64(len(c.conns))
	c.settle()
	clock, cpu := time.Now(), processorTime(c.t)
	c.hub.Refuse()
	c.hub.Finish(hub.ReasonDrain, over)
	c.handler.Wait()
	if over > 0 {
		f.drainSeconds = time.Since(clock).Seconds()
		f.drain = (processorTime(c.t) - cpu).Seconds() / float64(n)
	}
	c.hub.Close()
	lost := p.lost.Load()
	for _, w := range c.conns {
		lost += int64(c.sent[w.user]-w.last) + int64(c.sentToAll-w.lastToAll)
	}
	stats := c.hub.Stats()
	f.lost, f.wrong, f.leftStreams = f.lost+lost, f.wrong+p.wrong.Load(), f.leftStreams+int64(stats.Clients)
	if lost != 0 || p.wrong.Load() != 0 {
		c.t.Errorf("%d messages lost, %d duplicated, out of order or for another user: %v", lost, p.wrong.Load(), p.example.Load())
	}
	if stats.Clients != 0 || stats.Users != 0 || stats.FramesQueued != 0 || stats.QueueBytes != 0 || c.handler.wheel.count != 0 {
		c.t.Errorf("left: %+v, and %d streams on the wheel", stats, c.handler.wheel.count)
	}
	if byes, closed := p.byes.Load(), p.closed.Load(); byes != n || closed < n {
		c.t.Errorf("%d streams: %d byes, %d ends", n, byes, closed)
	}
	for deadline := time.Now().Add(millionPatience); runtime.NumGoroutine() > c.goroutines; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), c.goroutines)
		}
	}
}

// expected returns the number of expected deliveries.
func (c *memoryStreams) expected() int64 {
	return c.messages - c.unrouted + int64(c.sentToAll)*int64(len(c.conns))
}

// millionPatience is the timeout, which only matters to a test that fails.
const millionPatience = time.Minute

// settle waits until all published messages were delivered.
func (c *memoryStreams) settle() { c.await(c.expected()) }

func (c *memoryStreams) await(n int64) {
	if !c.peers.await(n, millionPatience) {
		c.t.Fatalf("%d of %d messages delivered; wrong: %v", c.peers.delivered.Load(), n, c.peers.example.Load())
	}
}

// inUse is memory in bytes.
type inUse struct{ heap, resident float64 }

// memoryInUse returns the memory in use after garbage was returned to the system.
func memoryInUse(t *testing.T) inUse {
	runtime.GC() // the content of a sync.Pool survives one collection
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	var total, resident int
	if _, err := fmt.Sscan(string(text), &total, &resident); err != nil {
		t.Fatal(err)
	}
	return inUse{float64(m.HeapInuse + m.StackInuse), float64(resident * os.Getpagesize())}
}

// processorTime returns the user and system CPU time of this process.
func processorTime(t *testing.T) time.Duration {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
