package hub_test

import (
	"testing"

	"usercast/hub"
)

// At every moment, a stream that resumes from LastID is complete.
func TestState(t *testing.T) {
	h := newPubSub(t, hub.Config{BroadcastUser: "*", HistoryPerUser: 10, HistoryAge: 1e9, HistoryBytes: 1 << 20})
	l := listen(t, h, hub.Options{User: "42"})
	want := func(frames, bytes int, seq uint64) {
		t.Helper()
		if s := l.State(); s.QueuedFrames != frames || s.QueuedBytes != bytes || s.LastID.Ms != seq {
			t.Errorf("%+v, want %d frames, %d bytes, id %d", s, frames, bytes, seq)
		}
	}
	want(0, 0, 0)
	h.Publish(hub.User("7"), "", "not for it") // 1
	want(0, 0, 1)
	h.Publish(hub.User("42"), "", "one") // 2
	h.Publish(hub.User("42"), "", "two") // 3
	want(2, 6, 1)
	frames, _ := l.Take(nil)
	want(0, 6, 3)
	h.Publish(hub.User("*"), "", "three") // 4
	want(1, 11, 3)
	l.Settle(frames, 2)
	want(1, 5, 3)
	l.drain()
	want(0, 0, 4)

	// A client that resumes keeps its position until its replay.
	back := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, l.State().LastID)})
	if s := back.State(); s.LastID.Ms != 4 {
		t.Errorf("at the newest entry: %+v", s)
	}
	behind := register(t, h, hub.Options{User: "42", Resume: text(h.Hub, frames[0].ID)})
	if s := behind.State(); s.LastID.Ms != 2 {
		t.Errorf("before its replay: %+v", s)
	}
	wantFrames(t, behind, "two", "three")
	if s := behind.State(); s.LastID.Ms != 4 {
		t.Errorf("after its replay: %+v", s)
	}
	l.End(hub.ReasonClosed)
	h.Publish(hub.User("42"), "", "later")
	want(0, 0, 4)
}
