package hub_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

// A client whose consumer is blocked in a write does not delay the next message, other clients, or Stats.
func TestInvariant1PublishNeverWaits(t *testing.T) {
	for _, to := range []hub.Recipient{hub.User("42"), hub.Group("g")} {
		t.Run(describe(to), func(t *testing.T) { testPublishNeverWaits(t, to) })
	}
}

func testPublishNeverWaits(t *testing.T, to hub.Recipient) {
	h := newPubSub(t, hub.Config{QueueFrames: 10, BroadcastUser: "*"})
	release := make(chan struct{})
	stuck := register(t, h, hub.Options{User: "42", Groups: []string{"g"}})
	writing := make(chan struct{})
	finished := make(chan struct{})
	h.Publish(to, "", "first")
	go func() { // the consumer: a write that blocks until the end of this test
		defer close(finished)
		frames, _ := stuck.Take(nil)
		close(writing)
		<-release
		stuck.Settle(frames, 0)
		stuck.drain()
	}()
	<-writing

	well := listen(t, h, hub.Options{User: "42", Groups: []string{"g"}})
	for i := range 10 {
		if n := h.Publish(to, "", fmt.Sprint(i)); n != 2 {
			t.Fatalf("message %d reached %d clients, want 2", i, n)
		}
	}
	well.drain()
	if n := h.Publish(hub.User("*"), "", "over the bound of one"); n != 1 {
		t.Fatalf("reached %d clients, want 1", n)
	}
	h.GapForAll(hub.GapRedisReconnect)
	h.GapFor(to, "", hub.GapTooLarge)
	h.Stats()
	wantReason(t, stuck, hub.ReasonSlow)
	well.End(hub.ReasonClosed)
	h.Finish(hub.ReasonDrain, 0)
	if got := stuck.interrupts.Load(); got == 0 {
		t.Error("the write of an ended client was not interrupted")
	}
	close(release)
	<-finished
}

// The hub wakes a consumer with its locks held. The consumer may only start a goroutine, which may call the hub
// immediately.
func TestInvariant1NoLockIsHeldDuringIO(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	var group sync.WaitGroup
	l := listen(t, h, hub.Options{User: "42"})
	l.onWake = func() {
		group.Go(func() {
			h.Stats()
			l.drain()
			h.Publish(hub.User("another"), "", "")
		})
	}
	for range 1000 {
		h.Publish(hub.User("42"), "", "hello")
	}
	group.Wait()
	if s := h.Stats(); s.Deliveries != 1000 {
		t.Errorf("%d delivered, want 1000", s.Deliveries)
	}
}

// A reader is a consumer like that of a stream: at most one goroutine, from Wake until Take returns nil.
type reader struct {
	*hub.Client
	group   *sync.WaitGroup
	running atomic.Int32
	seqs    []uint64 // owned by the running goroutine
	texts   []string
	twice   atomic.Bool
}

func (r *reader) Wake()      { r.group.Go(r.run) }
func (r *reader) Interrupt() {}

func (r *reader) run() {
	if r.running.Add(1) != 1 {
		r.twice.Store(true)
	}
	var frames []*hub.Frame
	for {
		var reason hub.Reason
		if len(r.seqs)%7 == 0 {
			r.Nudge() // while it is running
		}
		// Counted down before the Take that may be the last one: the next goroutine may start while this one
		// returns.
		r.running.Add(-1)
		frames, reason = r.Take(frames)
		if frames == nil || reason != 0 {
			return
		}
		r.running.Add(1)
		for _, f := range frames {
			r.seqs = append(r.seqs, f.ID.Ms)
			r.texts = append(r.texts, string(f.Wire))
		}
		r.Settle(frames, len(frames))
	}
}

func TestInvariant2OneConsumerInTheOrderOfPublish(t *testing.T) {
	const publishers, messages = 4, 500
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: 3}) // a group has 4 clients
	var group sync.WaitGroup
	readers := make([]*reader, 12)
	for i := range readers {
		r := &reader{group: &group}
		var err error
		r.Client, err = h.Register(hub.Options{User: fmt.Sprint("user", i%3), Groups: []string{fmt.Sprint("group", i%3)}, Consumer: r})
		if err != nil {
			t.Fatal(err)
		}
		readers[i] = r
		r.Wake() // a new client is awake
	}
	var publishing sync.WaitGroup
	for p := range publishers {
		publishing.Go(func() {
			for i := range messages {
				to := hub.User(fmt.Sprint("user", i%3))
				switch i % 10 {
				case 0:
					to = hub.User("*")
				case 3, 4, 5:
					to = hub.Group(fmt.Sprint("group", i%3))
				}
				h.Publish(to, "", fmt.Sprint(p, ":", i))
			}
		})
	}
	publishing.Wait()
	hub.AwaitBroadcasts(h.Hub)
	group.Wait()

	for i, r := range readers {
		if r.twice.Load() {
			t.Error("two consumers at once")
		}
		if !slices.IsSorted(r.seqs) {
			t.Error("frames out of sequence")
		}
		next := [publishers]int{}
		for _, text := range r.texts {
			var p, n int
			if _, err := fmt.Sscanf(text, "%d:%d", &p, &n); err != nil {
				t.Fatal(err)
			}
			for concerns := func(n int) bool { return n%10 == 0 || n%3 == i%3 }; next[p] < n; next[p]++ {
				if concerns(next[p]) {
					t.Fatalf("client %d got %s and not %d:%d", i, text, p, next[p])
				}
			}
			if next[p] != n {
				t.Fatalf("client %d got %s after %d:%d", i, text, p, next[p])
			}
			next[p]++
		}
		for p, n := range next {
			if last := messages - 1; n < last-2 {
				t.Errorf("client %d received the messages of publisher %d only up to %d", i, p, n)
			}
		}
	}
}

func TestInvariant3OneEncodingPerVariantNeverChanged(t *testing.T) {
	for _, fanOut := range []int{hub.NoLimit, 5} { // at once, and in parts
		t.Run(fmt.Sprint(fanOut), func(t *testing.T) { testOneEncoding(t, fanOut) })
	}
}

func testOneEncoding(t *testing.T, fanOut int) {
	var calls [2]int
	h := newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: fanOut, Encode: func(dst []byte, e hub.Entry, named bool) []byte {
		if named {
			calls[1]++
		} else {
			calls[0]++
		}
		return encode(dst, e, named)
	}})
	var listeners []*listener
	for i := range 20 {
		listeners = append(listeners, listen(t, h, hub.Options{User: "42", Groups: []string{"g"}, Named: i%2 == 0}))
	}
	h.Publish(hub.User("unknown"), "topic", "payload")
	h.Publish(hub.Group("unknown"), "topic", "payload")
	if calls != [2]int{} {
		t.Errorf("an unrouted message was encoded %v times", calls)
	}
	h.Publish(hub.User("42"), "topic", "payload")
	h.Publish(hub.Group("g"), "topic", "to a group")
	h.Publish(hub.User("*"), "topic", "to all")
	hub.AwaitBroadcasts(h.Hub)
	if calls != [2]int{3, 3} {
		t.Errorf("three messages in two variants: encoded %v times", calls)
	}
	calls = [2]int{}
	h.GapFor(hub.User("42"), "", hub.GapTooLarge)
	h.GapFor(hub.Group("g"), "", hub.GapTooLarge)
	h.GapForAll(hub.GapRedisReconnect)
	hub.AwaitBroadcasts(h.Hub)
	if calls[0]+calls[1] != 3 {
		t.Errorf("three gaps, which have one variant, were encoded %v times", calls)
	}

	first := [2][]*hub.Frame{}
	for i, l := range listeners {
		frames, _ := l.Take(nil)
		if len(frames) != 6 {
			t.Fatalf("%d frames", len(frames))
		}
		variant := i % 2
		if first[variant] == nil {
			first[variant] = slices.Clone(frames)
		}
		for j, f := range frames {
			if f != first[variant][j] {
				t.Errorf("frame %d is not shared", j)
			}
		}
		l.Settle(frames, len(frames))
		clear(frames[:0:len(frames)])
	}
	want := [2][]string{
		{"topic/payload", "topic/to a group", "topic/to all", "gap too-large", "gap too-large", "gap redis-reconnect"},
		{"payload", "to a group", "to all", "gap too-large", "gap too-large", "gap redis-reconnect"},
	}
	for range 100 { // later messages must not overwrite the frames
		h.Publish(hub.User("42"), "another", "message")
	}
	for variant := range want {
		for i, f := range first[variant] {
			if string(f.Wire) != want[variant][i] {
				t.Errorf("frame is %q now, was %q", f.Wire, want[variant][i])
			}
		}
	}
}

func TestInvariant4FullQueueEndsTheClient(t *testing.T) {
	for _, to := range []hub.Recipient{hub.User("42"), hub.Group("g"), hub.User("*")} {
		for _, fanOut := range []int{hub.NoLimit, 1} {
			t.Run(fmt.Sprint(describe(to), fanOut), func(t *testing.T) { testFullQueue(t, to, fanOut) })
		}
	}
}

func testFullQueue(t *testing.T, to hub.Recipient, fanOut int) {
	h := newPubSub(t, hub.Config{QueueFrames: 3, BroadcastUser: "*", FanOut: fanOut})
	member := hub.Options{User: "42", Groups: []string{"another", "g"}}
	full, well := listen(t, h, member), listen(t, h, member)
	reach := func(n int) int {
		if fanOut == 1 && to != hub.User("42") {
			return 1 // in parts
		}
		return n
	}
	for i := range 3 {
		if n := h.Publish(to, "", fmt.Sprint(i)); n != reach(2) {
			t.Fatalf("message %d reached %d clients", i, n)
		}
	}
	hub.AwaitBroadcasts(h.Hub)
	wantFrames(t, well, "0", "1", "2")
	if n := h.Publish(to, "", "3"); n != reach(1) {
		t.Errorf("the message that found one queue full reached %d clients, want 1", n)
	}
	hub.AwaitBroadcasts(h.Hub)
	wantReason(t, full, hub.ReasonSlow)
	wantFrames(t, full)
	wantReason(t, well, 0)
	wantFrames(t, well, "3")
	s := h.Stats()
	if s.FramesDiscarded[hub.ReasonSlow] != 3 || s.Disconnects[hub.ReasonSlow] != 1 || s.Clients != 1 || s.Groups != 2 {
		t.Errorf("discarded %d, disconnects %d, clients %d, groups %d; want 3, 1, 1, 2",
			s.FramesDiscarded[hub.ReasonSlow], s.Disconnects[hub.ReasonSlow], s.Clients, s.Groups)
	}
}

// An open client receives every message, however slowly it takes them. A client that was ended never receives a
// message after a missing one.
func TestInvariant4NothingIsSkippedUnannounced(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	h := newPubSub(t, hub.Config{QueueFrames: 8, QueueBytes: 40, QueueTotalBytes: 200})
	type pace struct {
		*listener
		one  int // takes once per this many messages
		next int // the message that it must receive next
	}
	var clients []*pace
	message := 0
	for range 5000 {
		if len(clients) < 12 {
			clients = append(clients, &pace{listener: listen(t, h, hub.Options{User: "42"}), one: 1 + random.IntN(20), next: message})
		}
		h.Publish(hub.User("42"), "", fmt.Sprint(message))
		message++
		clients = slices.DeleteFunc(clients, func(c *pace) bool {
			if random.IntN(c.one) > 0 {
				return false
			}
			texts, reason := c.drain()
			for _, text := range texts {
				if want := fmt.Sprint(c.next); text != want {
					t.Fatalf("got %q, want %q", text, want)
				}
				c.next++
			}
			if reason == 0 && c.next != message {
				t.Fatalf("an open client has got %d of %d messages", c.next, message)
			}
			return reason != 0
		})
	}
	if s := h.Stats(); s.Disconnects[hub.ReasonSlow] == 0 || s.Deliveries == 0 {
		t.Errorf("no client was slow or nothing was delivered: %+v", s)
	}
}

func TestInvariant5NothingIsEnqueuedAfterTheEnd(t *testing.T) {
	ends := map[string]func(*hub.PubSub, *hub.Client){
		"Finish":     func(_ *hub.PubSub, c *hub.Client) { c.Finish(hub.ReasonKicked) },
		"End":        func(_ *hub.PubSub, c *hub.Client) { c.End(hub.ReasonKicked) },
		"Hub.Finish": func(h *hub.PubSub, _ *hub.Client) { h.Finish(hub.ReasonKicked, 0) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			h := newPubSub(t, hub.Config{BroadcastUser: "*"})
			l := listen(t, h, hub.Options{User: "42", Groups: []string{"g"}})
			h.Publish(hub.User("42"), "", "before")
			end(h, l.Client)
			before := h.Stats()

			if n := h.Publish(hub.User("42"), "", "after") + h.Publish(hub.Group("g"), "", "after") + h.Publish(hub.User("*"), "", "after"); n != 0 {
				t.Errorf("reached %d clients", n)
			}
			h.GapForAll(hub.GapFeedReset)
			h.GapFor(hub.User("42"), "", hub.GapTooLarge)
			h.GapFor(hub.Group("g"), "", hub.GapTooLarge)
			after := h.Stats()
			if after.FramesEnqueued != before.FramesEnqueued || after.QueueBytes != before.QueueBytes {
				t.Errorf("enqueued %d more frames, %d more bytes",
					after.FramesEnqueued-before.FramesEnqueued, after.QueueBytes-before.QueueBytes)
			}
			if after.Clients != 0 || after.Users != 0 || after.Groups != 0 || after.Disconnects[hub.ReasonKicked] != 1 {
				t.Errorf("clients %d, users %d, groups %d, kicked %d", after.Clients, after.Users, after.Groups, after.Disconnects[hub.ReasonKicked])
			}

			if name == "End" {
				wantFrames(t, l)
			} else {
				wantFrames(t, l, "before")
			}
			for range 2 {
				if frames, reason := l.Take(nil); frames != nil || reason != hub.ReasonKicked {
					t.Errorf("Take: %d frames, %v", len(frames), word(reason))
				}
			}
			wakes := l.wakes.Load()
			l.Nudge()
			l.End(hub.ReasonClosed)
			l.Finish(hub.ReasonDrain)
			if l.wakes.Load() != wakes {
				t.Error("a consumer that has received the end was woken")
			}
			wantReason(t, l, hub.ReasonKicked)
		})
	}
}

// A consumer that is asleep is woken for the end. An awake one gets it from Take.
func TestConsumerIsWokenOnceUntilItStops(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	l := register(t, h, hub.Options{User: "42"})
	h.Publish(hub.User("42"), "", "while the head is written")
	if got := l.wakes.Load(); got != 0 {
		t.Fatalf("a new client was woken %d times: its owner calls Take first", got)
	}
	l.drain()
	for range 3 {
		h.Publish(hub.User("42"), "", "hello")
		l.Nudge()
	}
	if got := l.wakes.Load(); got != 1 {
		t.Errorf("woken %d times for one burst", got)
	}
	frames, _ := l.Take(nil)
	h.Publish(hub.User("42"), "", "meanwhile")
	l.Settle(frames, len(frames))
	if got := l.wakes.Load(); got != 1 {
		t.Errorf("woken %d times while awake", got)
	}
	l.drain()
	l.Finish(hub.ReasonDrain)
	if got := l.wakes.Load(); got != 2 {
		t.Errorf("woken %d times, the last one for the end; want 2", got)
	}
}

func TestInvariant9Conservation(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	h := newPubSub(t, hub.Config{
		BroadcastUser: "*", QueueFrames: 20, QueueBytes: 300, QueueTotalBytes: 2000,
		GapSpread: time.Millisecond, FanOut: 2,
	})
	var clients sync.WaitGroup
	for i := range 8 {
		clients.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(i)))
			for range 100 {
				liveAndDie(t, h, random)
			}
		})
	}
	clients.Wait()
	// Whether one of them was too slow is random.
	stalled := register(t, h, hub.Options{User: "stalled"})
	for stalled.Reason() == 0 {
		h.Publish(hub.User("stalled"), "", strings.Repeat("x", 60))
	}
	stalled.drain()

	s := h.Stats() // newPubSub checks the sums
	if s.Clients != 0 || s.FramesQueued != 0 || s.QueueBytes != 0 {
		t.Errorf("at rest: clients %d, frames queued %d, bytes %d", s.Clients, s.FramesQueued, s.QueueBytes)
	}
	if s.Deliveries == 0 || s.FramesDiscarded[hub.ReasonSlow] == 0 || s.FramesDiscarded[hub.ReasonClosed] == 0 || s.FramesDiscarded[hub.ReasonKicked] == 0 {
		t.Errorf("this run did not cover all cases: %+v", s)
	}
}

// liveAndDie simulates a client: it takes frames, delivers all or some of them, and ends in one of all possible
// ways, perhaps during a write.
func liveAndDie(t *testing.T, h *hub.PubSub, random *rand.Rand) {
	l := register(t, h, hub.Options{User: fmt.Sprint("user", random.IntN(3)), Groups: []string{"g", fmt.Sprint("user", random.IntN(3))}})
	for range 1 + random.IntN(10) {
		for range random.IntN(5) {
			publishAnything(h, random)
		}
		frames, reason := l.Take(nil)
		if reason != 0 {
			return
		}
		switch n := len(frames); random.IntN(12) {
		case 0: // the browser disconnects during a write; a part was written
			l.End(hub.ReasonClosed)
			l.Settle(frames, random.IntN(n+1))
			return
		case 1:
			l.Finish(hub.ReasonKicked) // during a write, which is completed
			l.Settle(frames, n)
			l.drain()
			return
		case 2: // during a write, which then fails
			l.Finish(hub.ReasonKicked)
			publishAnything(h, random)
			l.End(hub.ReasonClosed)
			l.Settle(frames, n/2)
			l.drain()
			return
		case 3: // a long write
			for range 5 {
				publishAnything(h, random)
			}
		}
		if l.Reason() == 0 {
			l.Settle(frames, len(frames))
		} else { // it has ended meanwhile
			l.Settle(frames, random.IntN(len(frames)+1))
		}
	}
	l.End(hub.ReasonClosed)
	l.drain()
}

func publishAnything(h *hub.PubSub, random *rand.Rand) {
	payload := string(bytes.Repeat([]byte("x"), random.IntN(60)))
	switch random.IntN(20) {
	case 0:
		h.GapForAll(hub.GapRedisReconnect)
	case 1:
		h.GapFor(hub.User("user1"), "", hub.GapTooLarge)
	case 2:
		h.Publish(hub.User("*"), "", payload)
	case 3:
		h.GapFor(hub.Group("g"), "", hub.GapTooLarge)
	case 4, 5, 6:
		h.Publish(hub.Group(oneOf(random, "g", "user1", "user2")), "", payload)
	default:
		h.Publish(hub.User(fmt.Sprint("user", random.IntN(4))), "", payload)
	}
}

func TestInvariant11NothingRunsAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{GapSpread: time.Minute})
		var listeners []*listener
		for range 100 {
			listeners = append(listeners, listen(t, h, hub.Options{User: "42"}))
		}
		h.GapForAll(hub.GapRedisReconnect)
		h.Close()
		time.Sleep(time.Hour)
		for _, l := range listeners {
			if l.wakes.Load() != 0 {
				t.Fatal("a closed hub wakes clients")
			}
		}
		h.Close()
	})
}
