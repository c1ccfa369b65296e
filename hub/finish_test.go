package hub_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"usercast/hub"
)

// A drain ends the streams evenly over time. If all pages reconnected at the same time, they would overload the
// next hub and the app.
func TestFinishIsSpreadEvenly(t *testing.T) {
	for _, clients := range []int{1, 10, 300, 4000} {
		t.Run(fmt.Sprint(clients), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const over = 10 * time.Second
				h := newPubSub(t, hub.Config{})
				for range clients {
					listen(t, h, hub.Options{User: "42"})
				}
				start := time.Now()
				done := make(chan struct{})
				go func() { h.Finish(hub.ReasonDrain, over); close(done) }()

				for tenth := range 10 {
					left := h.Stats().Clients
					want := clients * (10 - tenth) / 10
					if slack := 1 + clients/50; left > want+slack || left < want-slack {
						t.Errorf("%d clients left after %v, want about %d", left, time.Since(start), want)
					}
					time.Sleep(over / 10)
				}
				<-done
				if took := time.Since(start); took > over+20*time.Millisecond || took < over*8/10 {
					t.Errorf("took %v", took)
				}
				if s := h.Stats(); s.Clients != 0 || s.Disconnects[hub.ReasonDrain] != uint64(clients) {
					t.Errorf("%d clients left, %d ended", s.Clients, s.Disconnects[hub.ReasonDrain])
				}
			})
		})
	}
}

func TestFinishImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		newPubSub(t, hub.Config{}).Finish(hub.ReasonDrain, time.Hour) // without clients
		h := newPubSub(t, hub.Config{})
		listen(t, h, hub.Options{User: "42"})
		h.Finish(hub.ReasonDrain, 0)
		if took := time.Since(start); took != 0 {
			t.Errorf("took %v", took)
		}
		if s := h.Stats(); s.Clients != 0 {
			t.Errorf("%d clients left", s.Clients)
		}
	})
}

// The browsers of a draining hub may disconnect on their own.
func TestInvariant10FinishReturnsWhenNoClientIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newPubSub(t, hub.Config{})
		var listeners []*listener
		for range 10 {
			listeners = append(listeners, listen(t, h, hub.Options{User: "42"}))
		}
		h.Refuse()
		time.AfterFunc(time.Second, func() {
			for _, l := range listeners {
				l.End(hub.ReasonClosed)
			}
		})
		start := time.Now()
		h.Finish(hub.ReasonDrain, time.Hour)
		if took := time.Since(start); took > time.Second+20*time.Millisecond {
			t.Errorf("took %v, the last one left after a second", took)
		}
	})
}

func TestFinishLeavesTheQueueToTake(t *testing.T) {
	h := newPubSub(t, hub.Config{})
	l := listen(t, h, hub.Options{User: "42"})
	h.Publish(hub.User("42"), "", "one")
	h.Publish(hub.User("42"), "", "two")
	l.Finish(hub.ReasonExpired)
	l.Finish(hub.ReasonDrain) // the first reason counts
	texts, reason := l.drain()
	if fmt.Sprint(texts) != "[one two]" || reason != hub.ReasonExpired {
		t.Errorf("took %v, %v", texts, word(reason))
	}
	if id, ok := l.Position(); !ok || id.Ms != 2 {
		t.Errorf("position %v, %v", id, ok)
	}
	h.Publish(hub.User("another"), "", "")
	if id, ok := l.Position(); !ok || id.Ms != 2 {
		t.Errorf("position %v, %v: it moved after the end", id, ok)
	}
	if l.interrupts.Load() != 0 {
		t.Error("Finish interrupts a write")
	}
}
