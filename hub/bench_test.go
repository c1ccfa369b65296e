package hub_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"usercast/hub"
)

// Benchmarks of the hub alone, with its defaults. Each message is delivered before the next one is
// published, so the result includes the cost of waking a consumer. Otherwise many messages would be
// delivered in one batch, and the result would depend on the scheduler.

const benchPayload = `{"kind":"comment","id":7,"text":"a message of a common size, as an app would send it"}`

func benchHub(b *testing.B) *hub.PubSub {
	b.Helper()
	h := hub.NewPubSub(hub.Config{
		Encode: func(dst []byte, e hub.Entry, _ bool) []byte {
			dst = e.AppendID(append(dst, "id: "...))
			return append(append(append(dst, "\ndata: "...), e.Payload...), "\n\n"...)
		},
		BroadcastUser:   "*",
		QueueFrames:     1024,
		QueueBytes:      1 << 20,
		QueueGrace:      250 * time.Millisecond,
		QueueTotalBytes: 256 << 20,
		GapSpread:       3 * time.Second,
		HistoryPerUser:  256,
		HistoryAge:      2 * time.Minute,
		HistoryBytes:    64 << 20,
	})
	b.Cleanup(h.Close)
	return h
}

// A drainer is a consumer that takes everything when it is woken, in a goroutine that then ends, like the
// writer of a stream.
type drainer struct {
	client  *hub.Client
	settled *sync.WaitGroup // one for each frame
	nudged  *sync.WaitGroup // one per turn without a frame; nil: such turns are not counted
}

func (d *drainer) Wake()      { go d.drain() }
func (d *drainer) Interrupt() {}

func (d *drainer) drain() {
	if d.nudged != nil {
		defer d.nudged.Done()
		d.client.Position()
	}
	var frames []*hub.Frame
	for {
		if frames, _ = d.client.Take(frames); frames == nil {
			return
		}
		d.client.Settle(frames, len(frames))
		d.settled.Add(-len(frames))
	}
}

// benchDrainers registers clients of a user, in groups. Each frame that they settle is counted down.
func benchDrainers(b *testing.B, h *hub.PubSub, user string, n int, settled *sync.WaitGroup, groups ...string) {
	b.Helper()
	for range n {
		d := &drainer{settled: settled}
		benchRegister(b, h, d, hub.Options{User: user, Groups: groups, Consumer: d})
	}
}

func benchRegister(b *testing.B, h *hub.PubSub, d *drainer, o hub.Options) {
	b.Helper()
	var err error
	if d.client, err = h.Register(o); err != nil {
		b.Fatal(err)
	}
	if frames, reason := d.client.Take(nil); frames != nil || reason != 0 { // the consumer is asleep now
		b.Fatalf("a new client has %d frames, reason %v", len(frames), reason)
	}
}

func BenchmarkPublish(b *testing.B) {
	for _, bench := range []struct {
		name    string
		to      hub.Recipient
		clients int // of user 42, which is a member of the group 42
	}{
		{"ToNobody", hub.User("unknown"), 0},
		{"ToOneClient", hub.User("42"), 1},
		{"ToThreeClients", hub.User("42"), 3},
		{"ToGroupOfNobody", hub.Group("unknown"), 0},
		{"ToGroupOfOneClient", hub.Group("42"), 1},
		{"ToGroupOf100Clients", hub.Group("42"), 100},
		{"ToGroupOf10000Clients", hub.Group("42"), 10_000},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h := benchHub(b)
			var settled sync.WaitGroup
			if bench.to.Group {
				for i := range bench.clients {
					benchDrainers(b, h, strconv.Itoa(i), 1, &settled, bench.to.Name)
				}
			} else {
				benchDrainers(b, h, "42", bench.clients, &settled)
			}
			benchDrainers(b, h, "another", 10, &settled)
			b.ReportAllocs()
			for b.Loop() {
				settled.Add(bench.clients)
				h.Publish(bench.to, "activity", benchPayload)
				settled.Wait()
			}
		})
	}
}

// How long the publisher of a message for 10,000 of 20,000 clients waits, and that of the next message, for a user.
func BenchmarkPublishToMany(b *testing.B) {
	for _, to := range []hub.Recipient{hub.User("*"), hub.Group("g")} {
		b.Run(describe(to), func(b *testing.B) {
			const clients = 10_000
			h := benchHub(b)
			var settled sync.WaitGroup
			for i := range clients {
				benchDrainers(b, h, strconv.Itoa(i), 1, &settled, "g")
				if to.Group { // not members
					benchDrainers(b, h, strconv.Itoa(i), 1, &settled)
				}
			}
			benchDrainers(b, h, "alone", 1, &settled)
			var first, next []time.Duration
			for b.Loop() {
				settled.Add(clients + 1)
				if !to.Group {
					settled.Add(1)
				}
				start := time.Now()
				h.Publish(to, "activity", benchPayload)
				first = append(first, time.Since(start))
				start = time.Now()
				h.Publish(hub.User("alone"), "activity", benchPayload)
				next = append(next, time.Since(start))
				settled.Wait()
			}
			for name, times := range map[string][]time.Duration{"first": first, "next": next} {
				slices.Sort(times)
				b.ReportMetric(float64(times[len(times)/2]), "ns-"+name+"-p50")
				b.ReportMetric(float64(times[len(times)*99/100]), "ns-"+name+"-p99")
			}
		})
	}
}

// A message for one of 100,000 users or groups without a stream, in a hub whose history is full of such messages. The metrics say
// how far back it reaches then, at a number of messages per second.
func BenchmarkPublishUnrouted(b *testing.B) {
	for _, bench := range []struct {
		name  string
		size  int
		group bool
	}{{"7Bytes", 7, false}, {"87Bytes", 87, false}, {"200Bytes", 200, false}, {"Group/87Bytes", 87, true}} {
		b.Run(bench.name, func(b *testing.B) {
			h := benchHub(b)
			all, payload := make([]hub.Recipient, 100_000), strings.Repeat("x", bench.size)
			for i := range all {
				all[i] = hub.Recipient{Name: fmt.Sprint(10_000_000 + rand.IntN(90_000_000)), Group: bench.group}
			}
			n := 0
			publish := func() {
				h.Publish(all[n%len(all)], "activity", payload)
				n++
			}
			for range 1_000_000 { // until all bytes are in use
				publish()
			}
			b.ReportAllocs()
			for b.Loop() {
				publish()
			}
			for _, rate := range []float64{1000, 5000, 20_000} {
				b.ReportMetric(float64(h.Stats().HistoryEntries)/rate, fmt.Sprintf("s@%v/s", rate))
			}
		})
	}
}

func BenchmarkBroadcastTo10000Clients(b *testing.B) {
	const clients = 10_000
	h := benchHub(b)
	var settled sync.WaitGroup
	for i := range clients {
		benchDrainers(b, h, strconv.Itoa(i), 1, &settled)
	}
	b.ReportAllocs()
	for b.Loop() {
		settled.Add(clients)
		h.Publish(hub.User("*"), "activity", benchPayload)
		settled.Wait()
	}
}

// One of 10,000 pages connects and disconnects. All are in the same groups.
func BenchmarkRegisterAndEnd(b *testing.B) {
	for _, groups := range []int{0, 1, 64} {
		b.Run(fmt.Sprint(groups, "Groups"), func(b *testing.B) {
			h := benchHub(b)
			var settled sync.WaitGroup
			names := benchGroups(groups)
			for i := range 10_000 {
				benchDrainers(b, h, strconv.Itoa(i), 1, &settled, names...)
			}
			d := &drainer{settled: &settled}
			b.ReportAllocs()
			for b.Loop() {
				benchRegister(b, h, d, hub.Options{User: "42", Groups: names, Consumer: idleConsumer{}})
				d.client.End(hub.ReasonClosed)
				d.client.Take(nil) // returns the reason
			}
		})
	}
}

func benchGroups(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprint("group ", i))
	}
	return names
}

// 10,000 pages of the same groups disconnect, oldest first. The memory is that of one page while it is idle.
func BenchmarkEndAll(b *testing.B) {
	const clients = 10_000
	for _, groups := range []int{0, 1, 64} {
		b.Run(fmt.Sprint(groups, "Groups"), func(b *testing.B) {
			names := benchGroups(groups)
			all := make([]*hub.Client, clients)
			var took time.Duration
			var bytes int64
			for b.Loop() {
				h := benchHub(b)
				before := heap()
				for i := range all {
					var err error
					if all[i], err = h.Register(hub.Options{User: strconv.Itoa(i), Groups: names, Consumer: idleConsumer{}}); err != nil {
						b.Fatal(err)
					}
					all[i].Take(nil)
				}
				bytes = heap() - before
				start := time.Now()
				for _, c := range all {
					c.End(hub.ReasonClosed)
				}
				took += time.Since(start)
				clear(all)
			}
			b.ReportMetric(float64(took.Nanoseconds())/clients/float64(b.N), "ns/client")
			b.ReportMetric(float64(bytes)/clients, "B/client")
		})
	}
}

// idleConsumer is a consumer that does nothing, for tests that call Take themselves.
type idleConsumer struct{}

func (idleConsumer) Wake()      {}
func (idleConsumer) Interrupt() {}

// The work of a ping in the hub.
func BenchmarkNudgeAndPosition(b *testing.B) {
	h := benchHub(b)
	var nudged sync.WaitGroup
	d := &drainer{nudged: &nudged}
	benchRegister(b, h, d, hub.Options{User: "42", Consumer: d})
	b.ReportAllocs()
	for b.Loop() {
		nudged.Add(1)
		d.client.Nudge()
		nudged.Wait()
	}
}

// A page that reconnects and has missed 64 messages.
func BenchmarkReplayOf64Entries(b *testing.B) {
	const missed = 64
	h := benchHub(b)
	var settled sync.WaitGroup
	benchDrainers(b, h, "42", 1, &settled) // another tab, which stays connected
	resume := text(h.Hub, h.ClientsOf(hub.User("42"))[0].Opening())
	settled.Add(missed)
	for range missed {
		h.Publish(hub.User("42"), "activity", benchPayload)
	}
	settled.Wait()

	b.ReportAllocs()
	for b.Loop() {
		c, err := h.Register(hub.Options{User: "42", Resume: resume, Consumer: idleConsumer{}})
		if err != nil {
			b.Fatal(err)
		}
		replayed := 0
		var frames []*hub.Frame
		for {
			if frames, _ = c.Take(frames); frames == nil {
				break
			}
			c.Settle(frames, len(frames))
			replayed += len(frames)
		}
		if replayed != missed {
			b.Fatalf("%d messages replayed, want %d", replayed, missed)
		}
		c.End(hub.ReasonClosed)
		c.Take(nil) // returns the reason
	}
}

func BenchmarkStats(b *testing.B) {
	h := benchHub(b)
	var settled sync.WaitGroup
	for i := range 1000 {
		benchDrainers(b, h, strconv.Itoa(i), 1, &settled)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Stats()
	}
}
