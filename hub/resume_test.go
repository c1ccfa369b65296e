package hub_test

import (
	"fmt"
	"strings"
	"testing"

	"usercast/hub"
)

// The ids from which a stream can be resumed, in a hub without a history.
func TestResume(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	for range 10 {
		h.Publish(hub.User("unknown"), "", "")
	}
	id, other := h.Boot(), newPubSub(t, hub.Config{}).Boot()
	if id == other {
		t.Fatal("two processes have the same boot")
	}
	const unknown, expired = "gap unknown-id", "gap history-expired"
	tests := []struct{ resume, want string }{
		{"", ""},
		{id + "-%d", ""}, // the newest: nothing was published since
		{id + "-0", expired},
		{id + "-9", expired},
		{id + "-9999", unknown}, // the future
		{id + "-18446744073709551615", unknown},
		{id + "-18446744073709551616", unknown},
		{id + "-0%d", unknown},
		{id + "-+%d", unknown},
		{id + "- %d", unknown},
		{id + "-%d ", unknown},
		{id + "-%d-0", unknown},
		{id + "-", unknown},
		{id, unknown},
		{"-%d", unknown},
		{"-", unknown},
		{" ", unknown},
		{"%d", unknown},
		{"1526919030474-0", unknown}, // of a Redis stream
		{other + "-%d", unknown},
		{strings.ToUpper(id) + "-%d", unknown},
		{"\xff\x00-1", unknown},
		{strings.Repeat("9", 1<<16), unknown},
		{id + "-" + strings.Repeat("9", 1<<16), unknown},
	}
	for _, test := range tests {
		resume := strings.ReplaceAll(test.resume, "%d", fmt.Sprint(newest(t, h)))
		l := register(t, h, hub.Options{User: "42", Resume: resume})
		// A position of this hub would be wrong: if the browser lost the following gap, it would resume without it.
		if opening := l.Opening(); resume != "" && text(h.Hub, opening) != resume && opening != hub.UnknownID {
			t.Errorf("%.40q: opening %v", resume, opening)
		}
		frames, _ := l.Take(nil)
		var got string
		for _, f := range frames {
			got += string(f.Wire)
			if want := (hub.ID{Ms: 10}); f.ID != want {
				t.Errorf("%.40q: the gap's id is %v, want %v", resume, f.ID, want)
			}
		}
		if got != test.want {
			t.Errorf("%.40q: received %q, want %q", resume, got, test.want)
		}
		l.Settle(frames, len(frames))
		l.End(hub.ReasonClosed)
	}
}

// A browser that did not receive the gap reconnects with its old id, which the opening block repeats, and must receive
// the gap then. A browser that has received the gap must not receive it again.
func TestGapIsSentUntilItIsReceived(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	h.Publish(hub.User("42"), "", "missed")
	for _, resume := range []string{"strange", h.Boot() + "-0"} {
		l := register(t, h, hub.Options{User: "42", Resume: resume})
		again := register(t, h, hub.Options{User: "42", Resume: resume})
		frames, _ := l.Take(nil)
		l.Settle(frames, 1)
		if got, _ := again.drain(); len(got) != 1 || got[0] != string(frames[0].Wire) {
			t.Errorf("%q: received %q the second time, %q the first", resume, got, frames[0].Wire)
		}
		wantFrames(t, register(t, h, hub.Options{User: "42", Resume: text(h.Hub, frames[0].ID)}))
	}
}

// newest returns the id of the newest entry of h's sequence.
func newest(t *testing.T, h *hub.PubSub) uint64 {
	l := listen(t, h, hub.Options{User: "who asks"})
	defer l.End(hub.ReasonClosed)
	return l.Opening().Ms
}

func text(h *hub.Hub, id hub.ID) string { return string(h.AppendID(nil, id)) }
