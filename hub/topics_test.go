package hub_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"usercast/hub"
)

// A request may repeat a topic very often: it is stored once.
func TestTopicsAreASet(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*"})
	l := listen(t, h, hub.Options{User: "42", Topics: []string{"b", "a", "", "b", "a:1", "a"}})
	if got, want := l.Topics(), []string{"", "a", "a:1", "b"}; !slices.Equal(got, want) {
		t.Errorf("topics %q, want %q", got, want)
	}
	for _, topic := range []string{"", "a", "a:1", "b", "a:", "c", "B"} {
		h.Publish(hub.User("42"), topic, "to "+topic)
		h.Publish(hub.User("*"), topic, "all "+topic)
	}
	wantFrames(t, l, "to ", "all ", "to a", "all a", "to a:1", "all a:1", "to b", "all b")
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprint(i*37%50))
	}
	wide := listen(t, h, hub.Options{User: "wide", Topics: many})
	for i := range 52 {
		h.Publish(hub.User("wide"), fmt.Sprint(i), fmt.Sprint(i))
	}
	if got, _ := wide.drain(); len(got) != 50 || got[0] != "0" || got[49] != "49" {
		t.Errorf("a filter of 50 topics let %q through", got)
	}
	none := listen(t, h, hub.Options{User: "42", Topics: []string{}})
	h.Publish(hub.User("42"), "", "for no filter without a topic")
	wantFrames(t, none)

	before := heap()
	repeated := slices.Repeat([]string{"a"}, 2000)
	for range 200 {
		listen(t, h, hub.Options{User: "7", Topics: repeated})
	}
	if grown := heap() - before; grown > 200*2048 {
		t.Errorf("%d bytes per stream with one topic", grown/200)
	}
}

// The number of clients that a broadcast concerns is known without checking each of them, also after clients have
// registered, ended and resumed.
func TestBroadcastCountsItsAudience(t *testing.T) {
	h := newStreamFeed(t, hub.Config{BroadcastUser: "*", FanOut: 1, HistoryBytes: 1 << 20}, func(*hub.Query) {})
	h.Load(hub.ID{}, hub.ID{Ms: 9}, func(func(hub.Recipient, hub.Entry) bool) {})
	ms := uint64(9)
	reached := func(topic string) int {
		ms++
		defer hub.AwaitBroadcasts(h.Hub)
		return h.Append(hub.User("*"), hub.Entry{ID: hub.ID{Ms: ms}, Topic: topic})
	}
	want := func(a, b int) {
		t.Helper()
		if gotA, gotB := reached("a"), reached("b"); gotA != a || gotB != b {
			t.Errorf("a reaches %d, b %d; want %d, %d", gotA, gotB, a, b)
		}
	}
	want(0, 0)
	var ofA []*listener
	for range 10 {
		ofA = append(ofA, listen(t, h, hub.Options{User: "42", Topics: []string{"a", "a"}}))
	}
	want(1, 0)
	waiting := register(t, h, hub.Options{User: "42", Resume: "99-0"}) // it waits for the log
	want(1, 0)
	all := listen(t, h, hub.Options{User: "42"})
	want(1, 1)
	for _, l := range ofA {
		l.Finish(hub.ReasonDrain)
		l.End(hub.ReasonClosed)
	}
	want(1, 1)
	all.End(hub.ReasonClosed)
	want(0, 0)
	replayed := register(t, h, hub.Options{User: "42", Resume: "10-0", Topics: []string{"b"}})
	want(0, 0) // it receives them with its replay
	wantFrames(t, replayed, slices.Repeat([]string{""}, 7)...)
	want(0, 1)
	replayed.End(hub.ReasonClosed)
	waiting.Finish(hub.ReasonDrain)
	want(0, 0)
}

// The time per message under the hub's lock does not grow with the number of topics of a filter.
func BenchmarkPublishToFilters(b *testing.B) {
	for _, topics := range []int{1, 64, 2300} {
		b.Run(fmt.Sprint(topics), func(b *testing.B) {
			h := newPubSub(b, hub.Config{BroadcastUser: "*"})
			list := make([]string, topics)
			for i := range list {
				list[i] = strings.Repeat("t", 3) + fmt.Sprint(i)
			}
			for range 32 {
				listen(b, h, hub.Options{User: "42", Topics: list})
			}
			b.ReportAllocs()
			for b.Loop() {
				h.Publish(hub.User("42"), "another", "payload")
			}
		})
	}
}
