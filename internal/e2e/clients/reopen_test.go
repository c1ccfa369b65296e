package clients

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"usercast/internal/hubtest"
)

var codeBlock = regexp.MustCompile("(?s)```js\n(.*?)```")

// reopeningScript returns the script in docs/quickstart.md that reopens a closed stream, and a call of it. The
// page's query contains the stream's URL.
func reopeningScript(t *testing.T) string {
	t.Helper()
	text := hubtest.ReadFile(t, "docs/quickstart.md")
	for _, block := range codeBlock.FindAllStringSubmatch(text, -1) {
		if strings.Contains(block[1], "last-event-id") && strings.Count(block[1], `"/events"`) == 1 {
			return `
const received = [];
const render = data => received.push({ type: "message", data: JSON.stringify(data) });
const refetch = event => received.push({ type: "gap", data: event.data });
` + strings.Replace(block[1], `"/events"`, `new URLSearchParams(location.search).get("stream")`, 1)
		}
	}
	t.Fatal("docs/quickstart.md has no script that reopens a stream")
	return ""
}

// startReopening opens one page per client, whose script reopens its stream. crossOrigin: the pages have a different
// origin than their streams.
func startReopening(t *testing.T, all []client, crossOrigin bool, flags ...string) (*hub, []*session) {
	t.Helper()
	script := reopeningScript(t)
	pages := startRelay(t, hubtest.FreeAddr(t), "")
	pages.script = script
	h := startHub(t, append(flags, "--allow-origin", "http://"+pages.addr)...)
	var sessions []*session
	for i, c := range all {
		s := newSession(t, h, c, "u"+strconv.Itoa(i))
		s.relay.script = script
		host := s.relay.addr
		if crossOrigin {
			host = pages.addr
		}
		s.address = "http://" + host + "/reopens?stream=" + "http://" + s.relay.addr + "/events%3Fuser=" + s.user
		sessions = append(sessions, s)
	}
	startSessions(t, sessions)
	return h, sessions
}

// killWhileDown kills the hub before the first message, publishes three messages, and starts a hub after meanwhile has
// returned for each session. The published messages must arrive, followed by a fourth.
func killWhileDown(t *testing.T, h *hub, sessions []*session, refuse bool, meanwhile func(s *session) error) {
	t.Helper()
	before := make([]int, len(sessions))
	for i, s := range sessions {
		before[i] = s.relay.count(opened)
		if refuse {
			s.relay.refuse()
		} else {
			s.relay.answer(502)
		}
	}
	h.Stop(t, syscall.SIGKILL)
	for _, s := range sessions {
		for n := 1; n <= 3; n++ {
			if err := s.publish(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	h.Start(t)
	each(t, sessions, func(s *session) error {
		if err := meanwhile(s); err != nil {
			return err
		}
		if refuse {
			if err := s.relay.start(); err != nil {
				return err
			}
		} else {
			s.relay.answer(0)
		}
		if err := s.awaitStream(before[slices.Index(sessions, s)] + 1); err != nil {
			return err
		}
		return s.expect(4)
	})
}

func (s *session) awaitClosed() error {
	return s.await("the browser has closed the EventSource permanently", func() bool { return s.page.Text("es.readyState") == "2" })
}

// wantReopened returns an error if the stream was not opened by a new EventSource.
func (s *session) wantReopened() error {
	if s.relay.count(reopened) == 0 {
		return s.explain(fmt.Errorf("no request had the query parameter last-event-id"))
	}
	return nil
}

// reopenAfterRefusal restarts a hub that has a different origin than the page.
func reopenAfterRefusal(t *testing.T, all []client) {
	h, sessions := startReopening(t, all, true, "--feed", "stream")
	killWhileDown(t, h, sessions, true, func(s *session) error {
		if s.changeNetwork == nil { // other browsers reconnect
			return nil
		}
		return s.awaitClosed()
	})
}

// reopenAfterStatus restarts a hub behind a proxy that responds with 502.
func reopenAfterStatus(t *testing.T, all []client) {
	h, sessions := startReopening(t, all, false, "--feed", "stream")
	killWhileDown(t, h, sessions, false, (*session).awaitClosed)
	for _, s := range sessions {
		if err := s.wantReopened(); err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}
