package hub

import (
	"math"
	"testing"
	"time"
)

// Without the bound, the sum of an entry's time and the age overflows, and the sweep runs continuously.
func TestSweepOfALongHistoryAgeIsInTheFuture(t *testing.T) {
	h := NewPubSub(Config{
		Encode:         func(dst []byte, e Entry, _ bool) []byte { return append(dst, e.Payload...) },
		HistoryPerUser: 1, HistoryBytes: 1 << 20, HistoryAge: math.MaxInt64,
	})
	defer h.Close()
	c, err := h.Register(Options{User: "42", Consumer: idle{}})
	if err != nil {
		t.Fatal(err)
	}
	h.Publish("42", "", "x")
	c.End(ReasonClosed) // now the user is retained as well
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.history.(*userHistory)
	if s.oldest == nil || s.retained.first == nil {
		t.Fatal("nothing is kept")
	}
	if due := s.sweeper.due(); time.Until(due) < 24*time.Hour {
		t.Errorf("the next sweep is due in %v", time.Until(due))
	}
}

type idle struct{}

func (idle) Wake()      {}
func (idle) Interrupt() {}
