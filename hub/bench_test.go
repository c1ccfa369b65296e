package hub_test

import (
	"fmt"
	"math/rand/v2"
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

// benchDrainers registers clients of a user. Each frame that they settle is counted down.
func benchDrainers(b *testing.B, h *hub.PubSub, user string, n int, settled *sync.WaitGroup) {
	b.Helper()
	for range n {
		d := &drainer{settled: settled}
		benchRegister(b, h, d, hub.Options{User: user, Consumer: d})
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
		name, user string
		clients    int // of user 42
	}{
		{"ToNobody", "unknown", 0},
		{"ToOneClient", "42", 1},
		{"ToThreeClients", "42", 3},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h := benchHub(b)
			var settled sync.WaitGroup
			benchDrainers(b, h, "42", bench.clients, &settled)
			benchDrainers(b, h, "another", 10, &settled)
			b.ReportAllocs()
			for b.Loop() {
				settled.Add(bench.clients)
				h.Publish(hub.User(bench.user), "activity", benchPayload)
				settled.Wait()
			}
		})
	}
}

// A message for one of 100,000 users without a stream, in a hub whose history is full of such messages. The metrics say
// how far back it reaches then, at a number of messages per second.
func BenchmarkPublishUnrouted(b *testing.B) {
	for _, size := range []int{7, 87, 200} {
		b.Run(fmt.Sprint(size, "Bytes"), func(b *testing.B) {
			h := benchHub(b)
			users, payload := make([]string, 100_000), strings.Repeat("x", size)
			for i := range users {
				users[i] = fmt.Sprint(10_000_000 + rand.IntN(90_000_000))
			}
			n := 0
			publish := func() {
				h.Publish(hub.User(users[n%len(users)]), "activity", payload)
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

// One of 10,000 pages connects and disconnects.
func BenchmarkRegisterAndEnd(b *testing.B) {
	h := benchHub(b)
	var settled sync.WaitGroup
	for i := range 10_000 {
		benchDrainers(b, h, strconv.Itoa(i), 1, &settled)
	}
	d := &drainer{settled: &settled}
	b.ReportAllocs()
	for b.Loop() {
		benchRegister(b, h, d, hub.Options{User: "42", Consumer: idleConsumer{}})
		d.client.End(hub.ReasonClosed)
		d.client.Take(nil) // returns the reason
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
