package client_test

import (
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/hubtest"
)

// During a deploy, the hub stops. The proxy returns 502, which closes an EventSource permanently. The
// next hub does not know the ids of the previous one.
func hubIsDeployed(t *testing.T, w world) {
	h := startHub(t)
	s := startSite(t, h)
	args := s.stream() + ", {retry: 200}"
	tabs := []tab{open(t, w, s, args), open(t, w, s, args)}
	h.publish(s.channel("a"), "before")
	for _, p := range tabs {
		p.want("received", "before")
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
		p.want("received", "before", "after")
		p.want("gaps", "unknown-id")
	}
	if streams := s.requests(); streams[len(streams)-1].Get("last-event-id") == "" {
		t.Error("the stream was opened without the last id")
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

// A temporary rejection is a stream that opens, sends busy and ends.
func hubIsAtCapacity(t *testing.T, w world) {
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
	hubtest.Eventually(t, "the browser has retried several times", func() bool { return len(s.requests()) >= 3 })
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
		p.want("received", "hello")
	}
}

// A proxy that loses the route does not notify either side.
func silentStreamIsReplaced(t *testing.T, w world) {
	s := startSite(t, w.hub)
	args := s.stream() + ", {silence: 1000}"
	tabs := []tab{open(t, w, s, args), open(t, w, s, args)}
	w.hub.publish(s.channel("a"), "before")
	for _, p := range tabs {
		p.want("received", "before")
	}
	s.silence()
	w.hub.publish(s.channel("a"), "unanswered")
	for _, p := range tabs {
		p.want("received", "before", "unanswered")
		// On a busy machine, a tab can miss the messages of the leader: it then replaces the leader, and the stream without
		// this reason, or opens another stream later.
		p.Until("states.length >= 3")
		got := p.list("states")[:3]
		got[1], _ = strings.CutSuffix(got[1], " silent")
		if want := []string{"open", "connecting", "open"}; !slices.Equal(got, want) {
			t.Errorf("states: %q, want %q first", got, want)
		}
		p.want("gaps")
	}
}

func rejectedRetries(t *testing.T, w world) {
	s := startSite(t, w.hub)
	s.refuse(http.StatusServiceUnavailable)
	p := openTab(t, w, s)
	p.Run("window.times = []; Math.random = () => 0.5")
	p.connect(s.stream() + ", {retry: 300}")
	p.Run("stream.onState(state => { if (state == 'waiting') times.push(performance.now()) })")
	p.Until("times.length == 4")
	// 300, 600, 1200 ms, each rounded up to the next tick, plus the time for the rejection.
	if grow := p.Text("times[3] - times[2] > times[1] - times[0]"); grow != "true" {
		t.Errorf("rejected at %s", p.Text("times"))
	}
	if n := len(s.requests()); n > 5 {
		t.Errorf("%d requests", n)
	}
}

func onlineReconnects(t *testing.T, w world) {
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
	hubtest.Eventually(t, "there were two requests", func() bool { return len(s.requests()) == 2 })
	s.refuse(0)
	p.Until("stream.state == 'open'")
	for i, want := range []string{"token 1", "token 3"} {
		if got := s.requests()[i].Get("token"); got != want {
			t.Errorf("the token was %q, want %q", got, want)
		}
	}
	p.want("errors", "Uncaught Error: no token today")
}
