package hub_test

import (
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

const grace = 250 * time.Millisecond

// A burst is faster than the scheduler: the queue exceeds its bound before the consumer runs for the first time.
func TestBurstThatIsTakenInTimeEndsNoClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{QueueFrames: 10, QueueGrace: grace})
		c := listen(t, h, hub.Options{User: "42"})
		for round := range 20 { // longer than the grace in total
			for range 1000 {
				if n := h.Publish(hub.User("42"), "", "x"); n != 1 {
					t.Fatalf("round %d: not taken", round)
				}
			}
			time.Sleep(grace * 4 / 5)
			if frames, reason := c.Take(nil); len(frames) != 1000 || reason != 0 {
				t.Fatalf("round %d: %d frames, reason %v", round, len(frames), reason)
			} else {
				c.Settle(frames, len(frames))
			}
		}
	})
}

// A stalled reader is detected even if no more messages are published.
func TestQueueThatExceedsItsBoundForTheGraceEndsItsClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{QueueFrames: 10, QueueGrace: grace})
		c := listen(t, h, hub.Options{User: "42"})
		for range 11 {
			h.Publish(hub.User("42"), "", "x")
		}
		time.Sleep(grace - time.Millisecond)
		if reason := c.Reason(); reason != 0 {
			t.Fatalf("ended with %v within the grace", reason)
		}
		time.Sleep(2 * time.Millisecond)
		if reason := c.Reason(); reason != hub.ReasonSlow {
			t.Fatalf("reason %v after the grace, want slow", reason)
		}
		if s := h.Stats(); s.FramesDiscarded[hub.ReasonSlow] != 11 || s.FramesQueued != 0 || s.QueueBytes != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

// The grace period of one burst does not count for the next one.
func TestEachExcessOfAQueueHasItsOwnGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{QueueFrames: 10, QueueGrace: grace})
		c := listen(t, h, hub.Options{User: "42"})
		burst := func() {
			for range 20 {
				h.Publish(hub.User("42"), "", "x")
			}
		}
		burst()
		c.drain()
		time.Sleep(2 * grace)
		wantReason(t, c, 0)
		burst()
		time.Sleep(2 * grace)
		wantReason(t, c, hub.ReasonSlow)
	})
}

// A client that ends with Finish receives its queue and the last event, even if the queue is full.
func TestFullQueueOfAFinishedClientIsStillTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{QueueFrames: 10, QueueGrace: grace})
		c := listen(t, h, hub.Options{User: "42"})
		for range 20 {
			h.Publish(hub.User("42"), "", "x")
		}
		c.Finish(hub.ReasonKicked)
		time.Sleep(2 * grace)
		if frames, reason := c.Take(nil); len(frames) != 20 || reason != 0 {
			t.Errorf("%d frames, reason %v; want all 20 before the end", len(frames), reason)
		}
	})
}
