package clients

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"usercast/internal/browsertest"
	"usercast/internal/hubtest"
	"usercast/internal/need"
)

// A client is a library, or a browser, that receives a stream.
type client struct {
	name    string
	command []string // a program that takes the stream's URL as its last argument; or
	open    func(tb testing.TB, url string) text

	// idAtLine: it stores an ID after reading its line, instead of at the blank line. An
	// event that is interrupted between the two is lost.
	idAtLine bool
	// truncates: it delivers an incomplete event if the connection is closed inside it.
	truncates bool
	// standardStatus: it does not reconnect after a status other than 200, as the standard requires.
	standardStatus bool

	// changeNetwork notifies Firefox that the network has changed; nil for other clients.
	changeNetwork func() error
}

// text is a page: it returns the value of a JavaScript expression.
type text interface {
	Text(expression string) string
}

// libraries returns the clients that are programs, if their languages are installed.
func libraries(tb testing.TB) (all []client) {
	tb.Helper()
	goLib, err := buildGoClients()
	if err != nil {
		tb.Fatal(err)
	}
	all = []client{
		{name: "Go launchdarkly/eventsource", command: []string{goLib, "launchdarkly"}},
		{name: "Go tmaxmax/go-sse", command: []string{goLib, "tmaxmax"}},
		{name: "Go r3labs/sse", command: []string{goLib, "r3labs"}, truncates: true},
	}
	if need.Optional(tb, "node") && need.OptionalFile(tb, "testdata/node/node_modules/eventsource", "npm --prefix internal/e2e/clients/testdata/node ci") {
		node := func(library string) []string { return []string{"node", "testdata/node/client.mjs", library} }
		all = append(all, []client{
			{name: "eventsource@2", command: node("eventsource@2"), idAtLine: true},
			{name: "eventsource@4", command: node("eventsource@4"), standardStatus: true},
			{name: "eventsource@5", command: node("eventsource@5"), standardStatus: true},
			{name: "fetch-event-source", command: node("fetch-event-source"), idAtLine: true},
			{name: "event-source-polyfill", command: node("event-source-polyfill"), standardStatus: true},
			{name: "launchdarkly-eventsource", command: node("launchdarkly-eventsource")},
		}...)
	}
	if need.OptionalFile(tb, "/usr/lib/python3/dist-packages/httpx", "apt-get install python3-httpx") {
		all = append(all, client{name: "Python httpx", command: []string{"/usr/bin/python3", "testdata/python/client.py"}})
	}
	if need.Optional(tb, "ruby") {
		all = append(all, client{name: "Ruby Net::HTTP", command: []string{"ruby", "testdata/ruby/client.rb"}})
	}
	return all
}

// browsers starts the installed browsers, which are stopped at the end of the test.
func browsers(tb testing.TB) (all []client) {
	tb.Helper()
	var chromium *browsertest.Browser
	var firefox, webKit *browsertest.WebDriver
	var wg sync.WaitGroup
	if need.Optional(tb, browsertest.Chromium...) {
		wg.Go(func() { chromium = browsertest.Start(tb) })
	}
	if need.Optional(tb, browsertest.Firefox) {
		wg.Go(func() { firefox = browsertest.StartFirefox(tb) })
	}
	if need.Optional(tb, browsertest.WebKit) && need.Optional(tb, "Xvfb") {
		wg.Go(func() { webKit = browsertest.StartWebKit(tb) })
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
	if chromium != nil {
		all = append(all, client{name: "Chromium", standardStatus: true, open: func(tb testing.TB, url string) text { return chromium.Open(tb, url) }})
	}
	if firefox != nil {
		all = append(all, client{name: "Firefox", standardStatus: true, changeNetwork: firefox.NotifyNetworkChange,
			open: func(tb testing.TB, url string) text { return firefox.Open(tb, url) }})
	}
	if webKit != nil {
		all = append(all, client{name: "WebKitGTK", standardStatus: true, open: func(tb testing.TB, url string) text { return webKit.Open(tb, url) }})
	}
	return all
}

// An event is what a client has passed to its callback.
type event struct{ Type, Data string }

// A session is one client with one stream.
type session struct {
	client
	tb    testing.TB
	user  string
	hub   *hub
	relay *relay
	page  text

	address string // of the page; "": the page of the relay with a plain EventSource
	note    string // the result that is recorded instead of "ok"; owned by the function that each runs

	// Guarded by mu.
	mu     sync.Mutex
	events []event
	stderr bytes.Buffer
}

// newSession returns a session whose client has not been started.
func newSession(tb testing.TB, h *hub, c client, user string) *session {
	tb.Helper()
	return &session{client: c, tb: tb, user: user, hub: h, relay: startRelay(tb, hubtest.FreeAddr(tb), h.Public)}
}

// start starts the client, which is stopped at the end of the test.
func (s *session) start() error {
	query := "?user=" + s.user
	if s.open != nil {
		s.page = s.open(s.tb, cmp.Or(s.address, "http://"+s.relay.addr+"/"+query))
		return nil
	}
	cmd := exec.Command(s.command[0], append(slices.Clone(s.command[1:]), "http://"+s.relay.addr+"/events"+query)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for in := bufio.NewReader(stdout); ; {
			line, err := in.ReadBytes('\n')
			if err != nil {
				return
			}
			var e event
			err = json.Unmarshal(line, &e)
			s.mu.Lock()
			if err != nil {
				fmt.Fprintf(&s.stderr, "printed %q: %v\n", line, err)
			} else {
				s.events = append(s.events, e)
			}
			s.mu.Unlock()
		}
	})
	wg.Go(func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.stderr.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
		}
	})
	s.tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		wg.Wait()
		_ = cmd.Wait()
	})
	return nil
}

// received returns the data of the events of a type, in order. The type "message" stands for the events that
// onmessage receives. Empty ones, which some libraries deliver for blocks without data, are left out.
func (s *session) received(kind string) (data []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.page != nil {
		s.events = nil
		if err := json.Unmarshal([]byte(s.page.Text("JSON.stringify(received)")), &s.events); err != nil {
			fmt.Fprintf(&s.stderr, "%v\n", err)
		}
	}
	for _, e := range s.events {
		if e.Type == "" {
			e.Type = "message"
		}
		if e.Type == kind && (kind != "message" || e.Data != "") {
			data = append(data, e.Data)
		}
	}
	return data
}

// messages returns the messages that were received, as numbers in order; "?" stands for any other data.
func (s *session) messages() (numbers []string) {
	for _, data := range s.received("message") {
		number, ok := number(data)
		if !ok && s.truncates && (strings.HasPrefix(data, messagePrefix) || strings.HasPrefix(messagePrefix, data)) {
			continue
		}
		numbers = append(numbers, number)
	}
	return numbers
}

const messagePrefix, messageText = `{"n":`, `,"text":"grüße"}`

func message(n int) string { return messagePrefix + strconv.Itoa(n) + messageText }

// number is the inverse of message.
func number(data string) (string, bool) {
	n, isMessage := strings.CutPrefix(data, messagePrefix)
	n, isWhole := strings.CutSuffix(n, messageText)
	if _, err := strconv.Atoi(n); err != nil || !isMessage || !isWhole {
		return "?" + strconv.Quote(data), false
	}
	return n, true
}

// publish publishes message n.
func (s *session) publish(n int) error { return s.hub.publish(s.user, message(n)) }

// await waits until done returns true. The error includes the relay's history and the client's output.
func (s *session) await(what string, done func() bool) error {
	if err := await(what, done); err != nil {
		return s.explain(err)
	}
	return nil
}

func (s *session) explain(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return fmt.Errorf("%w\n%s\noutput of the client:\n%s", err, s.relay.history(), s.stderr.String())
}

// awaitStream waits until n streams have begun.
func (s *session) awaitStream(n int) error {
	return s.await(fmt.Sprintf("the client has opened %d streams", n), func() bool { return s.relay.count(opened) >= n })
}

// expect publishes message n, for which the client's stream must be open. It waits for the message, and
// checks that all messages up to n have arrived exactly once, in order.
func (s *session) expect(n int) error {
	if err := s.publish(n); err != nil {
		return err
	}
	var want []string
	for i := 1; i <= n; i++ {
		want = append(want, strconv.Itoa(i))
	}
	last := want[n-1]
	err := await("message "+last+" has arrived", func() bool { return slices.Contains(s.messages(), last) })
	if got := s.messages(); !slices.Equal(got, want) {
		err = &wrongMessages{got, want}
	}
	if err != nil {
		return s.explain(err)
	}
	return nil
}

// wrongMessages is the error that messages are missing, duplicated, damaged or in another order.
type wrongMessages struct{ got, want []string }

func (e *wrongMessages) Error() string {
	return fmt.Sprintf("messages received: %v, want %v", e.got, e.want)
}

// summary returns the error as a table cell.
func (e *wrongMessages) summary() string {
	var lost, others int
	for _, n := range e.want {
		if !slices.Contains(e.got, n) {
			lost++
		}
	}
	others = len(e.got) - (len(e.want) - lost)
	return fmt.Sprintf("**lost %d of %d**, %d too many", lost, len(e.want), others)
}

// each runs f for all sessions concurrently, because f mostly waits, and reports each result as a subtest.
func each(t *testing.T, sessions []*session, f func(s *session) error) {
	t.Helper()
	situation := t.Name()
	results := make([]chan error, len(sessions))
	for i, s := range sessions {
		results[i] = make(chan error, 1)
		go func() {
			defer close(results[i]) // also if f ends the test
			results[i] <- f(s)
		}()
	}
	for i, s := range sessions {
		t.Run(strings.ReplaceAll(s.name, "/", "-"), func(t *testing.T) {
			err, ok := <-results[i]
			if !ok {
				t.FailNow()
			}
			result := cmp.Or(s.note, "ok")
			var wrong *wrongMessages
			if errors.As(err, &wrong) {
				result = wrong.summary()
			} else if err != nil {
				result = "**fails**"
			}
			record(situation, s.name, result)
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// startAll starts one session per client, and returns when all streams are open.
func startAll(t *testing.T, h *hub, all []client) []*session {
	t.Helper()
	var sessions []*session
	for i, c := range all {
		sessions = append(sessions, newSession(t, h, c, "u"+strconv.Itoa(i)))
	}
	startSessions(t, sessions)
	return sessions
}

// startSessions starts the clients, and returns when all streams are open.
func startSessions(t *testing.T, sessions []*session) {
	t.Helper()
	errs := make(chan error, len(sessions))
	for _, s := range sessions {
		go func() {
			err := s.start()
			if err == nil {
				err = s.awaitStream(1)
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", s.name, err)
			}
			errs <- err
		}()
	}
	for range sessions {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}
