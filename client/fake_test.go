package client_test

import "testing"

// fake replaces EventSource and the clock by ones that the test controls.
const fake = `
window.sources = [];
window.EventSource = class extends EventTarget {
	static CLOSED = 2;
	readyState = 0;
	constructor(url) { super(); this.url = url; sources.push(this); }
	close() { this.readyState = 2; }
	say(type, data = "{}", lastEventId = "") { this.dispatchEvent(new MessageEvent(type, {data, lastEventId})); }
};
window.skipped = 0;
const real = performance.now.bind(performance);
performance.now = () => real() + skipped;
// Runs the timer of the module, which has an interval of a quarter of a second.
window.tick = () => dispatchEvent(new Event("visibilitychange")) && document.dispatchEvent(new Event("visibilitychange"));
window.skip = ms => { skipped += ms; tick(); };
`

// The module assumes a ping interval of 15 s, and then derives it from the pings.
func silenceIsMeasured(t *testing.T, w world) {
	s := startSite(t, w.hub)
	p := openTab(t, w, s)
	p.Run(fake)
	p.connect(s.stream() + ", {share: false}")
	p.Until("sources.length == 1")
	p.Run("sources[0].say('open'); skip(31000)")
	p.want("states", "open")
	p.Run("skip(2000)")
	p.Until("sources.length == 2")
	p.want("states", "open", "connecting silent")

	// Without pings, the module next assumes 30 s.
	p.Run("sources[1].say('open'); skip(61000)")
	p.want("states", "open", "connecting silent", "open")
	p.Run("sources[1].say('ping')") // the interval is 60 s
	p.Run("skip(121000)")
	p.want("states", "open", "connecting silent", "open")
	p.Run("for (const seconds of [10, 10, 10, 10]) { skip(1000 * seconds); sources[1].say('ping') }") // the interval is 10 s
	p.Run("skip(23000)")
	p.Until("sources.length == 3")
}

// A stream begins with a ping that has an id. The page receives no message, and the next stream resumes from this id,
// also before the first message. The ids of later pings are used as well.
func positionBeforeTheFirstMessage(t *testing.T, w world) {
	s := startSite(t, w.hub)
	p := openTab(t, w, s)
	p.Run(fake)
	p.connect(s.stream() + ", {share: false}")
	p.Until("sources.length == 1")
	p.Run("sources[0].say('open'); sources[0].say('ping', '{}', 'some-7')")
	p.want("states", "open")
	p.Run("skip(33000)")
	p.Until("sources.length == 2 && String(sources[1].url).includes('last-event-id=some-7')")
	p.Run("sources[1].say('open'); sources[1].say('ping', '{}', 'some-7'); sources[1].say('ping', '{}', 'some-9'); skip(67000)")
	p.Until("sources.length == 3 && String(sources[2].url).includes('last-event-id=some-9')")
	p.want("received")
	p.want("gaps")
}

// The first event of a stream has its id. A tab cannot resume a stream without an id, so its page
// receives a gap.
func noIDYet(t *testing.T, w world) {
	s := startSite(t, w.hub)
	leader, follower := openTab(t, w, s), openTab(t, w, s)
	for _, p := range []tab{leader, follower} {
		p.Run(fake)
		p.connect(s.stream())
	}
	leader.Until("sources.length == 1")
	leader.Run("sources[0].say('open')")
	follower.want("states", "open")
	leader.Close()
	follower.Until("sources.length == 1")
	follower.Run("sources[0].say('open')")
	follower.want("gaps", "unknown-id")
	follower.want("states", "open", "connecting", "open")
	follower.Run("sources[0].say('message', 'hello', 'some-7')")
	follower.want("received", "hello")
}
