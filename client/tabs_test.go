package client_test

import (
	"strconv"
	"testing"

	"usercast/internal/hubtest"
)

// A page that fetches its state after the stream has opened does not miss messages in between.
func newTabIsOpen(t *testing.T, w world) {
	s := startSite(t, w.hub)
	first := open(t, w, s, s.stream())
	counter := startCounter(t, w.hub, s.channel("activity"))
	first.goesOn()
	p := openTab(t, w, s)
	p.Run("listen(" + s.stream() + ").then(() => stream.ready).then(() => window.isReady = true)")
	p.Until("window.isReady")
	published := counter.n.Load()
	p.goesOn()
	if first, err := strconv.ParseInt(p.Text("received[0].split('@')[0]"), 10, 64); err != nil || first > published+1 {
		t.Errorf("the first message is %d, %v; %d were published when the stream was open", first, err, published)
	}
	p.wantUnbroken(counter.end())
}

// Users of the same browser must not receive each other's messages.
func sharesAreApart(t *testing.T, w world) {
	s := startSite(t, w.hub)
	for _, options := range []string{`{share: "42"}`, `{share: "42"}`, `{share: "7"}`, `{share: false}`} {
		p := open(t, w, s, s.stream()+","+options)
		p.want("states", "open")
	}
	hubtest.Eventually(t, "there are three streams", func() bool { return w.hub.streams(t, s.user) == 3 })
}

// Web Locks are missing on insecure origins. Browsers that block cookies can throw exceptions.
func withoutLocks(t *testing.T, w world) {
	s := startSite(t, w.hub)
	var tabs []tab
	for _, missing := range []string{
		"Object.defineProperty(navigator, 'locks', {value: undefined})",
		"window.BroadcastChannel = undefined",
		"window.BroadcastChannel = class { constructor() { throw new DOMException('not here', 'SecurityError') } }",
		"navigator.locks.request = () => Promise.reject(new DOMException('not here', 'SecurityError'))",
	} {
		p := openTab(t, w, s)
		p.Run(missing)
		p.connect(s.stream())
		p.Until("stream.state == 'open'")
		tabs = append(tabs, p)
	}
	if n := len(s.requests()); n != len(tabs) {
		t.Errorf("%d tabs have %d streams", len(tabs), n)
	}
	w.hub.publish(s.channel("a"), "hello")
	for _, p := range tabs {
		p.want("received", "hello")
	}
	tabs[0].Freeze()
	w.hub.publish(s.channel("a"), "meanwhile")
	tabs[0].Thaw()
	for _, p := range tabs {
		p.want("received", "hello", "meanwhile")
		p.want("gaps")
	}
}

func topics(t *testing.T, w world) {
	s := startSite(t, w.hub)
	args := s.stream() + `, {topics: ["activity", "chat:7", "error"]}`
	first, p := open(t, w, s, args), open(t, w, s, args)
	for _, p := range []tab{first, p} {
		p.Run(`window.chat = []; window.off = stream.on("chat:7", (data, event) => chat.push(data + event.topic + Boolean(event.id)))`)
	}
	for _, topic := range []string{"activity", "other", "chat:7", "error"} {
		w.hub.publish(s.channel(topic), "to "+topic)
	}
	for _, p := range []tab{first, p} {
		p.want("received", "to activity", "to chat:7", "to error")
		p.want("topics", "activity", "chat:7", "error")
		p.want("chat", "to chat:7chat:7true")
		p.Run("off()")
	}
	w.hub.publish(s.channel("chat:7"), "again")
	for _, p := range []tab{first, p} {
		p.want("received", "to activity", "to chat:7", "to error", "again")
		p.want("chat", "to chat:7chat:7true")
		for _, wrong := range []string{
			`stream.on("other", () => {})`,
			`stream.on("activity")`,
			`stream.onGap()`,
			`(await import("/usercast.js")).connect("/events", {topics: ["error", ""]})`,
		} {
			p.Run("window.thrown = undefined; (async () => { try { " + wrong + "; thrown = 'nothing' } catch (e) { thrown = e.name } })()")
			p.Until("window.thrown")
			if thrown := p.Text("thrown"); thrown != "TypeError" {
				t.Errorf("%s throws %s", wrong, thrown)
			}
		}
	}
}

func exceptions(t *testing.T, w world) {
	s := startSite(t, w.hub)
	tabs := []tab{open(t, w, s, s.stream()), open(t, w, s, s.stream())}
	for _, p := range tabs {
		p.Run(`
			stream.on(data => { throw new Error("first " + data) });
			stream.on(data => { throw new Error("second " + data) });
			stream.onGap(() => { throw new Error("gap") });
			window.last = []; stream.on(data => last.push(data));`)
	}
	w.hub.publish(s.channel("a"), "1")
	w.hub.publish(s.channel("a"), "2")
	for _, p := range tabs {
		p.want("last", "1", "2")
		p.want("errors", "Uncaught Error: first 1", "Uncaught Error: second 1", "Uncaught Error: first 2", "Uncaught Error: second 2")
	}
}

func closedIsClosed(t *testing.T, w world) {
	s := startSite(t, w.hub)
	leader, follower := open(t, w, s, s.stream()), open(t, w, s, s.stream())
	leader.Run("stream.close(); stream.close(); dispatchEvent(new Event('online')); dispatchEvent(new Event('pageshow'))")
	leader.want("states", "open", "closed")
	hubtest.Eventually(t, "the other tab has taken over", func() bool { return len(s.requests()) == 2 })
	follower.Until("stream.state == 'open'")
	w.hub.publish(s.channel("a"), "hello")
	follower.want("received", "hello")
	leader.want("received")
	follower.Run("stream.close()")
	hubtest.Eventually(t, "there is no stream", func() bool { return w.hub.streams(t, s.user) == 0 })
}
