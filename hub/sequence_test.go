package hub_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"usercast/hub"
)

// A model is the simplest possible hub: a sequence, and for each client the list of its queued entries.
type model struct {
	t       *testing.T
	random  *rand.Rand
	hub     *hub.PubSub
	newest  hub.ID
	clients []*modelClient
}

type modelClient struct {
	*listener
	user    string
	topics  []string // nil: all
	waiting []string // "place text"
	reason  hub.Reason
	final   hub.ID // the newest id at the end
	lost    bool   // something was discarded at the end
	strange bool   // it must receive a gap before its queue
	spread  bool   // the last frame of its queue is a gap for many, whose id is that of the moment at which it is taken
}

func TestInvariant6OneSequenceAndPositions(t *testing.T) {
	for run := range 50 {
		seed := rand.Uint64()
		m := &model{t: t, random: rand.New(rand.NewPCG(seed, 0)), hub: newPubSub(t, hub.Config{BroadcastUser: "*", FanOut: run % 3})}
		m.register("")
		for range 500 {
			m.step()
			m.check()
			if t.Failed() {
				t.Fatalf("seed %d", seed)
			}
		}
		m.hub.Close()
		for _, c := range m.clients {
			c.End(hub.ReasonClosed)
			c.drain()
		}
	}
}

func (m *model) step() {
	user := []string{"1", "2", "3", "*"}[m.random.IntN(4)]
	topic := []string{"", "a", "b"}[m.random.IntN(3)]
	switch m.random.IntN(12) {
	case 0:
		if len(m.clients) < 10 {
			m.register([]string{"", text(m.hub.Hub, m.newest), "strange"}[m.random.IntN(3)])
		}
	case 1:
		m.hub.GapForAll(hub.GapRedisReconnect)
		m.newest.Seq += 1 << 32 // a gap that only this hub has is not counted as a message
		m.entry("gap redis-reconnect", true, func(*modelClient) bool { return true })
	case 2:
		m.hub.GapFor(hub.User(user), topic, hub.GapTooLarge)
		m.newest = hub.ID{Ms: m.newest.Ms + 1}
		m.entry("gap too-large", user == "*", func(c *modelClient) bool { return c.concerns(user, topic) })
	case 3:
		c := m.any()
		c.Finish(hub.ReasonKicked)
		c.end(hub.ReasonKicked, m.newest)
	case 4:
		c := m.any()
		c.End(hub.ReasonClosed)
		c.end(hub.ReasonClosed, m.newest)
		c.lost = c.lost || len(c.waiting) > 0
		c.waiting = nil
	case 5, 6, 7:
		m.take(m.any())
	default:
		text := fmt.Sprint(m.random.Uint32())
		m.newest = hub.ID{Ms: m.newest.Ms + 1}
		want := m.entry(text, false, func(c *modelClient) bool { return c.concerns(user, topic) })
		got := m.hub.Publish(hub.User(user), topic, text)
		if user == "*" {
			got, want = min(got, 1), min(want, 1)
		}
		if got != want {
			m.t.Errorf("message reached %d clients, want %d", got, want)
		}
	}
}

// entry adds the entry with the newest id and returns how many clients it concerns.
func (m *model) entry(text string, spread bool, concerns func(*modelClient) bool) (n int) {
	for _, c := range m.clients {
		if c.reason == 0 && concerns(c) {
			c.waiting, c.spread = append(c.waiting, fmt.Sprint(m.newest, " ", text)), spread
			n++
		}
	}
	return n
}

func (m *model) register(resume string) {
	c := &modelClient{user: fmt.Sprint(1 + m.random.IntN(3))}
	switch m.random.IntN(4) {
	case 0:
		c.topics = []string{"a"}
	case 1:
		c.topics = []string{"b", ""}
	}
	switch resume {
	case "", text(m.hub.Hub, m.newest):
	default:
		c.strange = true
		c.waiting = []string{fmt.Sprint(m.newest, " gap unknown-id")}
	}
	c.listener = register(m.t, m.hub, hub.Options{User: c.user, Topics: c.topics, Resume: resume})
	m.clients = append(m.clients, c)
	want := hub.UnknownID
	if !c.strange {
		want = m.newest
	}
	if got := c.Opening(); got != want {
		m.t.Errorf("opening %v, want %v", got, want)
	}
}

// take compares the queue of c. It removes clients that have ended.
func (m *model) take(c *modelClient) {
	hub.AwaitBroadcasts(m.hub.Hub)
	frames, reason := c.Take(nil)
	if c.strange && len(frames) > 0 {
		var queued []*hub.Frame
		queued, reason = c.Take(nil)
		frames = append(frames, queued...)
	}
	c.strange = false
	if last := len(c.waiting) - 1; last >= 0 && c.spread {
		at := m.newest
		if c.reason != 0 {
			at = c.final
		}
		_, text, _ := strings.Cut(c.waiting[last], " ")
		c.waiting[last] = fmt.Sprint(at, " ", text)
	}
	var got []string
	for _, f := range frames {
		got = append(got, fmt.Sprint(f.ID, " ", string(f.Wire)))
	}
	c.Settle(frames, len(frames))
	if !slices.Equal(got, c.waiting) {
		m.t.Errorf("took %q, want %q", got, c.waiting)
	}
	want := c.reason
	if reason == 0 && c.waiting != nil { // the reason is returned after the last frame
		want = 0
	}
	if reason != want {
		m.t.Errorf("reason %v, want %v", word(reason), word(want))
	}
	c.waiting = nil
	if reason != 0 {
		m.checkPosition(c)
		m.clients = slices.DeleteFunc(m.clients, func(other *modelClient) bool { return other == c })
	}
}

func (m *model) check() {
	for _, c := range m.clients {
		m.checkPosition(c)
	}
}

func (m *model) checkPosition(c *modelClient) {
	want := m.newest
	if c.reason != 0 {
		want = c.final
	}
	id, ok := c.Position()
	if ok != (len(c.waiting) == 0 && !c.lost) {
		m.t.Errorf("position ok is %v with %d frames waiting, lost %v", ok, len(c.waiting), c.lost)
	}
	if ok && id != want {
		m.t.Errorf("position %v, want %v", id, want)
	}
}

func (m *model) any() *modelClient {
	if len(m.clients) == 0 {
		m.register("")
	}
	return m.clients[m.random.IntN(len(m.clients))]
}

func (c *modelClient) concerns(user, topic string) bool {
	return (user == "*" || user == c.user) && (c.topics == nil || slices.Contains(c.topics, topic))
}

func (c *modelClient) end(reason hub.Reason, newest hub.ID) {
	if c.reason == 0 {
		c.reason, c.final = reason, newest
	}
}

// While another goroutine publishes, a position must not include an entry that the client has not taken.
func TestInvariant15PositionIsBeforeQueuedFrames(t *testing.T) {
	const messages, every = 20000, 3 // every third message is for the client
	h := newPubSub(t, hub.Config{})
	l := register(t, h, hub.Options{User: "42"})
	published := make(chan struct{})
	go func() {
		defer close(published)
		for seq := 1; seq <= messages; seq++ {
			user := "another"
			if seq%every == 0 {
				user = "42"
			}
			h.Publish(hub.User(user), "", "")
		}
	}()

	var taken, positions uint64
	for running := true; running; {
		select {
		case <-published:
			running = false
		default:
		}
		if id, ok := l.Position(); ok {
			positions++
			if newest := id.Ms - id.Ms%every; newest > taken {
				t.Fatalf("position %d, but %d was taken last: %d is missing", id.Ms, taken, newest)
			}
		}
		frames, _ := l.Take(nil)
		for _, f := range frames {
			if f.ID.Ms != taken+every {
				t.Fatalf("took %d after %d", f.ID.Ms, taken)
			}
			taken = f.ID.Ms
		}
		l.Settle(frames, len(frames))
	}
	if id, ok := l.Position(); !ok || id.Ms != messages || positions == 0 {
		t.Errorf("position %v, %v at the end, want %d; %d positions seen", id, ok, messages, positions)
	}
	l.End(hub.ReasonClosed)
}

// Discarded frames were never written. If the last event had their position, the loss would be hidden.
func TestInvariant15NoPositionAfterADiscard(t *testing.T) {
	for name, takeFirst := range map[string]bool{"queued": false, "in mid-flight": true} {
		t.Run(name, func(t *testing.T) {
			h := newPubSub(t, hub.Config{})
			l := listen(t, h, hub.Options{User: "42"})
			h.Publish(hub.User("42"), "", "never written")
			l.Finish(hub.ReasonKicked)
			var frames []*hub.Frame
			if takeFirst {
				frames, _ = l.Take(nil)
			}
			l.End(hub.ReasonSlow)
			l.Settle(frames, 0)
			wantFrames(t, l)
			wantReason(t, l, hub.ReasonKicked)
			if id, ok := l.Position(); ok {
				t.Errorf("position %v", id)
			}
		})
	}
}
