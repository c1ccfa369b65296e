package client_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// The other tabs buffer the messages for a frozen tab, up to a limit.
func longFrozenGetsGap(t *testing.T, w world) {
	s := startSite(t, w.hub)
	frozen, awake := open(t, w, s, s.stream()), open(t, w, s, s.stream())
	w.hub.publish(s.channel("a"), "before")
	frozen.want("received", "before")
	awake.want("received", "before")
	frozen.Freeze()
	long := strings.Repeat("x", 400_000)
	for i := 1; i <= 3; i++ {
		w.hub.publish(s.channel("a"), long)
	}
	awake.Until("received.length == 4")
	frozen.Thaw()
	frozen.Until("gaps.length || received.length == 4")
	w.hub.publish(s.channel("a"), "after")
	frozen.Until("received.at(-1) == 'after'")
	awake.Until("received.at(-1) == 'after'")
	gaps, received := frozen.list("gaps"), len(frozen.list("received"))
	// On a busy machine, the frozen tab can become the leader and receive all messages from the hub.
	if !(slices.Equal(gaps, []string{"history-expired"}) && received == 2) && !(len(gaps) == 0 && received == 5) {
		t.Errorf("the frozen tab received %d messages and the gaps %q", received, gaps)
	}
	if gaps := awake.list("gaps"); len(gaps) > 0 {
		t.Errorf("the other tab received gaps: %q", gaps)
	}
}

func tabReturns(t *testing.T, w world) {
	s := startSite(t, w.hub)
	p, other := open(t, w, s, s.stream()), open(t, w, s, s.stream())
	p.Run("addEventListener('pageshow', e => window.persisted = e.persisted)")
	p.Do(chromedp.Navigate(s.URL + "/elsewhere"))
	other.Until("states.at(-1) == 'open'")
	w.hub.publish(s.channel("a"), "1")
	w.hub.publish(s.channel("a"), "2")
	other.want("received", "1", "2")
	p.Run("history.back()")
	p.Until("window.persisted")
	p.want("received", "1", "2")
	w.hub.publish(s.channel("a"), "3")
	p.want("received", "1", "2", "3")
	p.want("gaps")
}
