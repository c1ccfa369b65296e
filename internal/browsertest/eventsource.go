package browsertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// EventSourceScript defines listen(url), which opens an EventSource es and records the events that it dispatches.
const EventSourceScript = `
window.fired = [];
window.opens = 0;
window.errors = []; // readyState at each error; 2 is CLOSED, permanently
window.listen = url => {
	window.es = new EventSource(url, {withCredentials: true});
	es.onopen = () => opens++;
	es.onerror = () => errors.push(es.readyState);
	for (const name of ["message", "gap", "busy", "bye", "ping", "activity"])
		if (name != "ping" || url.includes("ping=event"))
			es.addEventListener(name, e => fired.push({name, data: e.data, id: e.lastEventId}));
};
`

// An EventSource is a page with a stream.
type EventSource struct {
	*Page
}

// OpenEventSource opens the page /livez of an origin, and a stream in it.
func OpenEventSource(tb testing.TB, browser *Browser, origin, stream string) EventSource {
	tb.Helper()
	p := EventSource{browser.Open(tb, origin+"/livez")}
	p.Run(EventSourceScript)
	p.Run(fmt.Sprintf("listen(%q)", stream))
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the page: %s", p.Text("JSON.stringify({fired, opens, errors, readyState: es.readyState})"))
		}
	})
	return p
}

// Received waits until the page has received n events, and returns them as "type data".
func (p EventSource) Received(n int) []string {
	p.tb.Helper()
	p.Until(fmt.Sprintf("fired.length >= %d", n))
	return strings.Split(p.Text(`fired.map(e => e.name + " " + e.data).join("\x00")`), "\x00")
}

// WantReceived checks that the page received exactly these events, as "type data".
func (p EventSource) WantReceived(want ...string) {
	p.tb.Helper()
	if got := p.Received(len(want)); !slices.Equal(got, want) {
		p.tb.Fatalf("the page received %q, want %q", got, want)
	}
}

// WantAlive checks that the EventSource was never closed permanently.
func (p EventSource) WantAlive() {
	p.tb.Helper()
	if got := p.Text(`es.readyState != 2 && !errors.includes(2)`); got != "true" {
		p.tb.Fatal("the EventSource is closed permanently")
	}
}
