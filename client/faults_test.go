package client_test

import (
	"net/http"
	"slices"
	"syscall"
	"testing"

	"usercast/internal/hubtest"
)

// A deploy: the hub goes, the proxy before it answers 502, which ends an EventSource
// for good, and another hub comes, which knows no id of the one before.
func hubIsDeployed(t *testing.T, w world) {
	h := startHub(t)
	s := startSite(t, h)
	args := s.stream() + ", {retry: 200}"
	tabs := []tab{open(t, w, s, args), open(t, w, s, args)}
	h.publish(s.channel("a"), "before")
	for _, p := range tabs {
		p.want("heard", "before")
	}
	h.Stop(t, syscall.SIGKILL)
	for _, p := range tabs {
		p.Until("states.filter(s => s == 'waiting refused').length >= 2")
	}
	h.publish(s.channel("a"), "missed")
	h.Start(t)
	for _, p := range tabs {
		p.Until("gaps.length > 0 && stream.state == 'open'")
	}
	h.publish(s.channel("a"), "after")
	for _, p := range tabs {
		p.want("heard", "before", "after")
		p.want("gaps", "unknown-id")
	}
	if streams := s.asked(); streams[len(streams)-1].Get("last-event-id") == "" {
		t.Error("the last id was not carried over")
	}
}

func redisIsRestarted(t *testing.T, w world) {
	h := startHub(t)
	s := startSite(t, h)
	tabs := []tab{open(t, w, s, s.stream()), open(t, w, s, s.stream())}
	h.Redis.Restart()
	for _, p := range tabs {
		p.want("gaps", "redis-reconnect")
		p.want("states", "open")
	}
}

// "Not now" is a stream that opens, says so and ends.
func hubIsFull(t *testing.T, w world) {
	h := startHub(t, "--max-clients", "1", "--retry", "50ms")
	occupant := startSite(t, h)
	other := open(t, w, occupant, occupant.stream())
	s := startSite(t, h)
	var tabs []tab
	for range 2 {
		p := openTab(t, w, s)
		p.connect(s.stream())
		p.Until("stream.state == 'waiting'")
		tabs = append(tabs, p)
	}
	hubtest.Eventually(t, "the browser has come back some times", func() bool { return len(s.asked()) >= 3 })
	for _, p := range tabs {
		p.want("states", "waiting clients")
	}
	other.Close()
	for _, p := range tabs {
		p.want("states", "waiting clients", "open")
		p.want("gaps")
	}
	h.publish(s.channel("a"), "hello")
	for _, p := range tabs {
		p.want("heard", "hello")
	}
}

// A proxy that lost the way tells neither end.
func silentStreamIsLeft(t *testing.T, w world) {
	s := startSite(t, w.hub)
	args := s.stream() + ", {silence: 1000}"
	tabs := []tab{open(t, w, s, args), open(t, w, s, args)}
	w.hub.publish(s.channel("a"), "before")
	for _, p := range tabs {
		p.want("heard", "before")
	}
	s.silence()
	w.hub.publish(s.channel("a"), "into the void")
	for _, p := range tabs {
		p.want("heard", "before", "into the void")
		// On a busy machine, a tab can miss the other one's heartbeat and open a stream later on.
		p.Until("states.length >= 3")
		if got, want := p.list("states")[:3], []string{"open", "connecting silent", "open"}; !slices.Equal(got, want) {
			t.Errorf("states: %q, want %q first", got, want)
		}
		p.want("gaps")
	}
}

func refusedComesBack(t *testing.T, w world) {
	s := startSite(t, w.hub)
	s.refuse(http.StatusServiceUnavailable)
	p := openTab(t, w, s)
	p.Run("window.times = []; Math.random = () => 0.5")
	p.connect(s.stream() + ", {retry: 300}")
	p.Run("stream.onState(state => { if (state == 'waiting') times.push(performance.now()) })")
	p.Until("times.length == 4")
	// 300, 600, 1200 ms, each at the next tick, and what the refusal takes.
	if grow := p.Text("times[3] - times[2] > times[1] - times[0]"); grow != "true" {
		t.Errorf("refused at %s", p.Text("times"))
	}
	if n := len(s.asked()); n > 5 {
		t.Errorf("asked %d times", n)
	}
}

func onlineComesBack(t *testing.T, w world) {
	s := startSite(t, w.hub)
	s.refuse(http.StatusUnauthorized)
	p := openTab(t, w, s)
	p.connect(s.stream() + ", {retry: 60000}")
	p.want("states", "waiting refused")
	s.refuse(0)
	p.Run("dispatchEvent(new Event('online'))")
	p.want("states", "waiting refused", "connecting", "open")
}

func tokenIsFresh(t *testing.T, w world) {
	s := startSite(t, w.hub)
	s.refuse(http.StatusUnauthorized)
	p := openTab(t, w, s)
	p.Run("window.tokens = 0")
	p.connect(s.stream() + `, {retry: 50, token: async () => {
		if (++tokens == 2) throw new Error("no token today");
		return "token " + tokens;
	}}`)
	hubtest.Eventually(t, "it has asked twice", func() bool { return len(s.asked()) == 2 })
	s.refuse(0)
	p.Until("stream.state == 'open'")
	for i, want := range []string{"token 1", "token 3"} {
		if got := s.asked()[i].Get("token"); got != want {
			t.Errorf("the token was %q, want %q", got, want)
		}
	}
	p.want("errors", "Uncaught Error: no token today")
}
