package hub_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"usercast/hub"
)

// Benchmarks of the hub alone, with the product's defaults. A message is waited
// for before the next one: a publisher that ran ahead would make one batch of many
// messages, and the figure would be the scheduler's. So each delivery has in it
// what it costs to wake a consumer.

const benchPayload = `{"kind":"comment","id":7,"text":"a message of a common size, as an app would send it"}`

func benchHub(b *testing.B) *hub.PubSub {
	b.Helper()
	h := hub.NewPubSub(hub.Config{
		Encode: func(dst []byte, e hub.Entry, _ bool) []byte {
			dst = e.ID.Append(append(dst, "id: "...))
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

// A drainer is a consumer that takes all there is whenever it is woken, on a
// goroutine that ends with that, as a stream's writer does.
type drainer struct {
	client  *hub.Client
	settled *sync.WaitGroup // one for each frame
	nudged  *sync.WaitGroup // one for each turn without a frame; nil: they do not count
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

// benchDrainers registers clients of a user; all that they settle counts down.
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
	if frames, reason := d.client.Take(nil); frames != nil || reason != 0 { // it sleeps
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
				h.Publish(bench.user, "activity", benchPayload)
				settled.Wait()
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
		h.Publish("*", "activity", benchPayload)
		settled.Wait()
	}
}

// A page that comes and goes, one of 10,000.
func BenchmarkRegisterAndEnd(b *testing.B) {
	h := benchHub(b)
	var settled sync.WaitGroup
	for i := range 10_000 {
		benchDrainers(b, h, strconv.Itoa(i), 1, &settled)
	}
	d := &drainer{settled: &settled}
	b.ReportAllocs()
	for b.Loop() {
		benchRegister(b, h, d, hub.Options{User: "42", Consumer: silent{}})
		d.client.End(hub.ReasonClosed)
		d.client.Take(nil) // says the reason
	}
}

// silent is a consumer for tests that call Take themselves.
type silent struct{}

func (silent) Wake()      {}
func (silent) Interrupt() {}

// What a ping asks of the hub.
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
	benchDrainers(b, h, "42", 1, &settled) // another tab, which stays
	resume := h.ClientsOf("42")[0].Opening().String()
	settled.Add(missed)
	for range missed {
		h.Publish("42", "activity", benchPayload)
	}
	settled.Wait()

	b.ReportAllocs()
	for b.Loop() {
		c, err := h.Register(hub.Options{User: "42", Resume: resume, Consumer: silent{}})
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
		c.Take(nil) // says the reason
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
