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

// listener is a page that connects, and keeps all that it hears.
const listener = `
window.heard = [], window.topics = [], window.gaps = [], window.states = [], window.errors = [], window.late = 0;
onerror = message => void errors.push(message);
window.listen = async (url, options) => {
	const { connect } = await import("/usercast.js");
	window.stream = connect(url, options);
	stream.on((data, event) => {
		heard.push(data);
		topics.push(event.topic);
		const at = data.split("@")[1]; // when it was published
		if (at) late = Math.max(late, Date.now() - at);
	});
	stream.onGap(reason => gaps.push(reason));
	stream.onState((state, reason) => states.push(reason ? state + " " + reason : state));
};
`

// A tab is a page that listens.
type tab struct {
	*browsertest.Page
	t *testing.T
}

// openTab opens a tab whose stream has not begun yet.
func openTab(t *testing.T, w world, s *site) tab {
	t.Helper()
	p := tab{w.browser.Open(t, s.URL+"/"), t}
	p.Run(listener)
	return p
}

// connect begins the tab's stream; args are those of the module's connect.
func (p tab) connect(args string) {
	p.t.Helper()
	p.Run("listen(" + args + ")")
	p.Until("window.stream")
}

// open is openTab and connect, and waits until the stream is open.
func open(t *testing.T, w world, s *site, args string) tab {
	t.Helper()
	p := openTab(t, w, s)
	p.connect(args)
	p.Until(`stream.state == "open"`)
	return p
}

// list is an array of strings in the page.
func (p tab) list(name string) (list []string) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.Text("JSON.stringify("+name+")")), &list); err != nil {
		p.t.Fatal(err)
	}
	return list
}

// want waits until a list in the page is as it should be.
func (p tab) want(name string, want ...string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("%s.length >= %d", name, len(want)))
	if got := p.list(name); !slices.Equal(got, want) {
		p.t.Fatalf("%s: %q, want %q", name, got, want)
	}
}

// goesOn waits until the tab has heard some messages more.
func (p tab) goesOn() {
	p.t.Helper()
	p.Until("heard.length >= " + p.Text("heard.length + 20"))
}

// late is how late the latest message was.
func (p tab) late() time.Duration {
	p.t.Helper()
	ms, err := strconv.Atoi(p.Text("late"))
	if err != nil {
		p.t.Fatal(err)
	}
	return time.Duration(ms) * time.Millisecond
}

// wantUnbroken waits for the last of the numbers that were published, and wants each
// once and in order since the first that the tab heard.
func (p tab) wantUnbroken(last int64) {
	p.t.Helper()
	p.Until(fmt.Sprintf(`heard.length && heard.at(-1).startsWith("%d@")`, last))
	var first, n int64
	for i, message := range p.list("heard") {
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
