package client_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// What a sleeper missed is kept by the tabs that were awake, within bounds.
func longSleeperHearsGap(t *testing.T, w world) {
	s := startSite(t, w.hub)
	sleeper, awake := open(t, w, s, s.stream()), open(t, w, s, s.stream())
	w.hub.publish(s.channel("a"), "before")
	sleeper.want("heard", "before")
	awake.want("heard", "before")
	sleeper.Freeze()
	long := strings.Repeat("x", 400_000)
	for i := 1; i <= 3; i++ {
		w.hub.publish(s.channel("a"), long)
	}
	awake.Until("heard.length == 4")
	sleeper.Thaw()
	sleeper.Until("gaps.length || heard.length == 4")
	w.hub.publish(s.channel("a"), "after")
	sleeper.Until("heard.at(-1) == 'after'")
	awake.Until("heard.at(-1) == 'after'")
	gaps, heard := sleeper.list("gaps"), len(sleeper.list("heard"))
	// On a busy machine the sleeper can get the stream itself, and all from the hub.
	if !(slices.Equal(gaps, []string{"history-expired"}) && heard == 2) && !(len(gaps) == 0 && heard == 5) {
		t.Errorf("the sleeper heard %d messages, and of the gaps %q", heard, gaps)
	}
	if gaps := awake.list("gaps"); len(gaps) > 0 {
		t.Errorf("the tab that was awake heard of gaps: %q", gaps)
	}
}

func tabComesBack(t *testing.T, w world) {
	s := startSite(t, w.hub)
	p, other := open(t, w, s, s.stream()), open(t, w, s, s.stream())
	p.Run("addEventListener('pageshow', e => window.persisted = e.persisted)")
	p.Do(chromedp.Navigate(s.URL + "/elsewhere"))
	other.Until("states.at(-1) == 'open'")
	w.hub.publish(s.channel("a"), "1")
	w.hub.publish(s.channel("a"), "2")
	other.want("heard", "1", "2")
	p.Run("history.back()")
	p.Until("window.persisted")
	p.want("heard", "1", "2")
	w.hub.publish(s.channel("a"), "3")
	p.want("heard", "1", "2", "3")
	p.want("gaps")
}
