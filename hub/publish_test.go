package hub_test

import (
	"fmt"
	"testing"

	"usercast/hub"
)

// Every hub of a fleet receives every message, and most are for users of other hubs.
func TestInvariant8UnroutedMessageAllocatesNothing(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*"})
	for i := range 100 {
		listen(t, h, hub.Options{User: fmt.Sprint(i), Groups: []string{"g"}, Topics: []string{"a"}})
	}
	for name, publish := range map[string]func(){
		"no such user":         func() { h.Publish(hub.User("unknown"), "a", "payload") },
		"no such group":        func() { h.Publish(hub.Group("42"), "a", "payload") },
		"no such topic":        func() { h.Publish(hub.User("42"), "b", "payload") },
		"no such topic, group": func() { h.Publish(hub.Group("g"), "b", "payload") },
		"broadcast":            func() { h.Publish(hub.User("*"), "b", "payload") },
		"gap without a client": func() { h.GapFor(hub.User("unknown"), "a", hub.GapTooLarge) },
		"gap without a member": func() { h.GapFor(hub.Group("unknown"), "a", hub.GapTooLarge) },
		"the hub is empty":     func() { empty.Publish(hub.User("42"), "a", "payload") },
	} {
		if n := testing.AllocsPerRun(1000, publish); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

var empty = hub.NewPubSub(hub.Config{Encode: encode})

// The allocations per message do not depend on the number of receivers: the frame is shared, and a queue in use
// has its memory already.
func TestPublishToManyEncodesOnce(t *testing.T) {
	allocations := make(map[int]float64)
	for _, n := range []int{1, 10, 1000} {
		calls := 0
		h := newPubSub(t, hub.Config{Encode: func(dst []byte, e hub.Entry, _ bool) []byte {
			calls++
			return append(dst, e.Payload...)
		}})
		listeners := make([]*listener, n)
		spent := make([][]*hub.Frame, n)
		for i := range listeners {
			listeners[i] = register(t, h, hub.Options{User: "42"})
		}
		publish := func() {
			h.Publish(hub.User("42"), "topic", "payload")
			for i, l := range listeners {
				frames, _ := l.Take(spent[i])
				l.Settle(frames, len(frames))
				spent[i] = frames
			}
		}
		publish() // the queues allocate their memory, two slices each
		publish()
		calls = 0
		const runs = 50
		allocations[n] = testing.AllocsPerRun(runs, publish)
		if calls != runs+1 { // AllocsPerRun warms up
			t.Errorf("%d messages to %d clients were encoded %d times", runs+1, n, calls)
		}
	}
	if one := allocations[1]; one > 2 || allocations[10] != one || allocations[1000] != one {
		t.Errorf("allocations by number of clients: %v, want the same 2 (frame and bytes)", allocations)
	}
}

// The result includes the work of the consumer (Take and Settle).
func BenchmarkPublishToOne(b *testing.B)     { benchmarkPublish(b, 1, "42") }
func BenchmarkBroadcastTo10000(b *testing.B) { benchmarkPublish(b, 10_000, "*") }
func benchmarkPublish(b *testing.B, clients int, user string) {
	h := newPubSub(b, hub.Config{BroadcastUser: "*"})
	listeners := make([]*listener, clients)
	spent := make([][]*hub.Frame, clients)
	for i := range listeners {
		listeners[i] = register(b, h, hub.Options{User: "42"})
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Publish(hub.User(user), "topic", `{"kind":"comment","id":7}`)
		for i, l := range listeners {
			frames, _ := l.Take(spent[i])
			l.Settle(frames, len(frames))
			spent[i] = frames
		}
	}
}
