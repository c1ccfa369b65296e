package client_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"usercast/internal/browsertest"
)

// listener is the script of a page that connects and records all events.
const listener = `
window.received = [], window.topics = [], window.gaps = [], window.states = [], window.errors = [], window.late = 0;
onerror = message => void errors.push(message);
window.listen = async (url, options) => {
	const { connect } = await import("/usercast.js");
	window.stream = connect(url, options);
	stream.on((data, event) => {
		received.push(data);
		topics.push(event.topic);
		const at = data.split("@")[1]; // the time of publication
		if (at) late = Math.max(late, Date.now() - at);
	});
	stream.onGap(reason => gaps.push(reason));
	stream.onState((state, reason) => states.push(reason ? state + " " + reason : state));
};
`

// A tab is a page with a stream.
type tab struct {
	*browsertest.Page
	t *testing.T
}

// openTab opens a tab without a stream.
func openTab(t *testing.T, w world, s *site) tab {
	t.Helper()
	p := tab{w.browser.Open(t, s.URL+"/"), t}
	p.Run(listener)
	return p
}

// connect opens the tab's stream with the arguments of the module's connect.
func (p tab) connect(args string) {
	p.t.Helper()
	p.Run("listen(" + args + ")")
	p.Until("window.stream")
}

// open opens a tab, connects it, and waits until the stream is open.
func open(t *testing.T, w world, s *site, args string) tab {
	t.Helper()
	p := openTab(t, w, s)
	p.connect(args)
	p.Until(`stream.state == "open"`)
	return p
}

// list returns an array of strings in the page.
func (p tab) list(name string) (list []string) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.Text("JSON.stringify("+name+")")), &list); err != nil {
		p.t.Fatal(err)
	}
	return list
}

// want waits until a list in the page has as many elements as want, and compares them.
func (p tab) want(name string, want ...string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("%s.length >= %d", name, len(want)))
	if got := p.list(name); !slices.Equal(got, want) {
		p.t.Fatalf("%s: %q, want %q", name, got, want)
	}
}

// goesOn waits until the tab has received 20 more messages.
func (p tab) goesOn() {
	p.t.Helper()
	p.Until("received.length >= " + p.Text("received.length + 20"))
}

// late returns the maximum delay of a message.
func (p tab) late() time.Duration {
	p.t.Helper()
	ms, err := strconv.Atoi(p.Text("late"))
	if err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(ms) * time.Millisecond
}

// wantUnbroken waits for the last published number. The tab must have received each number since
// its first one exactly once and in order.
func (p tab) wantUnbroken(last int64) {
	p.t.Helper()
	p.Until(fmt.Sprintf(`received.length && received.at(-1).startsWith("%d@")`, last))
	var first, n int64
	for i, message := range p.list("received") {
		number, _, _ := strings.Cut(message, "@")
		if _, err := fmt.Sscan(number, &n); err != nil {
			p.t.Fatalf("message %q: %v", message, err)
		}
		if i == 0 {
			first = n
		}
		if n != first+int64(i) {
			p.t.Fatalf("message %d is %d, want %d; the gaps are %q, the states %q", i, n, first+int64(i), p.list("gaps"), p.list("states"))
		}
	}
	if gaps := p.list("gaps"); len(gaps) > 0 {
		p.t.Errorf("gaps: %q", gaps)
	}
}
