package hub_test

import (
	"fmt"
	"slices"
	"testing"

	"usercast/hub"
)

func TestMessageReachesItsUserOnly(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*"})
	one, two, other := listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "42"}), listen(t, h, hub.Options{User: "4"})
	if n := h.Publish(hub.User("42"), "topic", "hello"); n != 2 {
		t.Errorf("reached %d clients", n)
	}
	for _, user := range []string{"", "unknown", "42 ", "4*", "\xff"} {
		if n := h.Publish(hub.User(user), "", "lost"); n != 0 {
			t.Errorf("a message to %q reached %d clients", user, n)
		}
	}
	wantFrames(t, one, "hello")
	wantFrames(t, two, "hello")
	wantFrames(t, other)
}

func TestTopicFilter(t *testing.T) {
	topics := []string{"", "activity", "activity:more", "other"}
	tests := []struct {
		filter []string
		want   []string
	}{
		{nil, topics},
		{[]string{"activity"}, []string{"activity"}},
		{[]string{""}, []string{""}},
		{[]string{"other", "", "other"}, []string{"", "other"}},
		{[]string{"act", "nothing"}, nil},
		{[]string{}, nil},
	}
	for _, test := range tests {
		t.Run(fmt.Sprintf("%q", test.filter), func(t *testing.T) {
			h := newPubSub(t, hub.Config{BroadcastUser: "*"})
			l := listen(t, h, hub.Options{User: "42", Topics: test.filter})
			var twice []string
			for _, topic := range topics {
				want := 0
				if slices.Contains(test.want, topic) {
					want = 1
					twice = append(twice, topic, "all "+topic)
				}
				if n := h.Publish(hub.User("42"), topic, topic) + h.Publish(hub.User("*"), topic, "all "+topic); n != 2*want {
					t.Errorf("topic %q got through %d times", topic, n)
				}
			}
			wantFrames(t, l, twice...)
		})
	}
}

func TestBroadcastReachesAllInOrder(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*"})
	one, two := listen(t, h, hub.Options{User: "1"}), listen(t, h, hub.Options{User: "2"})
	h.Publish(hub.User("1"), "", "a")
	if n := h.Publish(hub.User("*"), "", "b"); n != 2 {
		t.Errorf("reached %d clients", n)
	}
	h.Publish(hub.User("1"), "", "c")
	wantFrames(t, one, "a", "b", "c")
	wantFrames(t, two, "b")
}

func TestBroadcastCanBeTurnedOff(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	l := listen(t, h, hub.Options{User: "42"})
	star := listen(t, h, hub.Options{User: "*"}) // then it is a normal user
	if n := h.Publish(hub.User(""), "", "to the empty user"); n != 0 {
		t.Errorf("the empty user is %d clients", n)
	}
	if n := h.Publish(hub.User("*"), "", "hello"); n != 1 {
		t.Errorf("reached %d clients", n)
	}
	wantFrames(t, l)
	wantFrames(t, star, "hello")
	if got := h.BroadcastUser(); got != "" {
		t.Errorf("BroadcastUser %q", got)
	}
}

// Clients that end while a message is routed do not affect the delivery to others.
func TestEndsWhileRoutingSkipNoClient(t *testing.T) {
	for _, user := range []string{"42", "*"} {
		h := newPubSub(t, hub.Config{BroadcastUser: "*", QueueFrames: 1})
		var full, well []*listener
		for i := range 20 {
			l := listen(t, h, hub.Options{User: "42"})
			if i%3 == 0 {
				full = append(full, l)
			} else {
				well = append(well, l)
			}
		}
		h.Publish(hub.User("42"), "", "one")
		for _, l := range well {
			wantFrames(t, l, "one")
		}
		if n := h.Publish(hub.User(user), "", "two"); n != len(well) {
			t.Errorf("reached %d clients, want %d", n, len(well))
		}
		for _, l := range full {
			wantReason(t, l, hub.ReasonSlow)
		}
		for _, l := range well {
			wantReason(t, l, 0)
			wantFrames(t, l, "two")
		}
		if s := h.Stats(); s.Clients != len(well) {
			t.Errorf("%d clients, want %d", s.Clients, len(well))
		}
	}
}
