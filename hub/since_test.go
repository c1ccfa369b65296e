package hub_test

import (
	"strings"
	"testing"
	"time"

	"usercast/hub"
)

// A step of the wall clock does not change any age. Since follows the step, so that it matches the clock of its
// reader.
func TestSinceDoesNotDependOnTheWallClock(t *testing.T) {
	for _, step := range []time.Duration{-time.Hour, time.Hour} {
		h := newPubSub(t, hub.Config{})
		start := time.Now()
		l := listen(t, h, hub.Options{User: "42"})
		if !strings.Contains(l.Since().String(), " m=") {
			t.Error("ages that are computed from Since depend on the wall clock")
		}
		hub.StepWallClock(t, h.Hub, step)
		if age, most := time.Since(l.Since()), time.Since(start); age < 0 || age > most {
			t.Errorf("after a step of %v: age %v, want %v at most", step, age, most)
		}
		if shown := l.Since().Round(0); shown.Before(start.Round(0).Add(-time.Second)) || shown.After(time.Now().Round(0).Add(time.Second)) {
			t.Errorf("after a step of %v: since %v, and by the current clock the client registered at %v", step, shown, start)
		}
		l.End(hub.ReasonClosed)
	}
}
