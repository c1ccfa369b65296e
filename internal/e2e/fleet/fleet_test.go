package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/browsertest"
	"usercast/internal/eventstream"
	"usercast/internal/haproxytest"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// Runs the rolling restart of docs/reverse-proxies.md: three hubs behind HAProxy are restarted one after the other
// while messages are published to users and groups. Each page reconnects to another hub, and receives every message
// exactly once and no gap.
func TestRollingRestartLosesNoMessageWithoutGap(t *testing.T) {
	if testing.Short() {
		t.Skip("opens thousands of streams, and starts a browser")
	}
	browser := browsertest.Start(t)
	for _, feed := range []string{app.FeedStream, app.FeedPubSub} {
		t.Run(feed, func(t *testing.T) {
			t.Parallel() // it mostly waits
			deploy(t, browser, feed)
		})
	}
}

const (
	fleetUsers  = 100
	fleetGroups = 20 // each user is a member of two
	fleetPages  = 600
	fleetTabs   = 3 // a browser opens at most six connections per origin
)

// fleetAudience returns the audience of the pages of a user.
func fleetAudience(user int) audience {
	return audience{user: strconv.Itoa(user), groups: []string{strconv.Itoa(user % fleetGroups), strconv.Itoa((user + 7) % fleetGroups)}}
}

func deploy(t *testing.T, browser *browsertest.Browser, feed string) {
	start := time.Now()
	f := startFleet(t, feed)
	// Tabs first, because each takes several steps to open.
	tabs := make([]browsertest.EventSource, fleetTabs)
	for i := range tabs {
		tabs[i] = browsertest.OpenEventSource(t, browser, "http://"+f.proxy.Addr(), "/events?"+fleetAudience(i).query())
		tabs[i].Until("es.readyState == 1")
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	visitors := make([]*visitor, fleetPages)
	hubtest.Each(t, fleetPages, func(i int) error {
		visitors[i] = &visitor{audience: fleetAudience(i % fleetUsers), leaves: i%10 == 0}
		return visitors[i].open(ctx, f)
	})
	read := make(chan struct{}, fleetPages)
	for _, v := range visitors {
		go func() {
			if v.err = v.read(ctx, f); v.err != nil {
				f.lost.Add(1)
			}
			read <- struct{}{}
		}()
	}
	app := &traffic{Publisher: hubtest.NewPublisher(t, f.server.Addr()), feed: feed, stop: make(chan struct{}), ended: make(chan error, 1)}
	go func() { app.ended <- app.run() }()
	opened := time.Since(start)

	// A page that failed reports its error at the end.
	hubtest.Eventually(t, "the pages that disconnected have reconnected", func() bool {
		return f.lost.Load() > 0 || f.left.Load() == fleetPages/10 && f.here.Load() == fleetPages
	})
	start = time.Now()
	for _, h := range f.hubs {
		f.restart(h)
	}
	rolled := time.Since(start)
	hubtest.Eventually(t, "all pages have reconnected", func() bool {
		return f.lost.Load() > 0 || f.here.Load() == fleetPages && f.clients() == fleetPages+fleetTabs
	})
	close(app.stop)
	if err := <-app.ended; err != nil {
		t.Fatalf("publish: %v", err)
	}

	for range visitors {
		<-read
	}
	sum := make(tally)
	faulty := 0
	for i, v := range visitors {
		err := v.err
		if f.lost.Load() == 0 { // otherwise other pages may be incomplete
			err = checkReceived(v.received, app.wanted(v.audience))
		}
		if err != nil {
			if faulty++; faulty <= 10 {
				t.Errorf("page %d of %+v: %v\nreceived: %s", i, v.audience, err, v.history())
			}
		}
		sum.add(v.received)
	}
	if faulty > 10 {
		t.Errorf("%d pages have errors in total", faulty)
	}
	for i, p := range tabs {
		p.WantAlive() // otherwise the next line would time out
		p.Until(fmt.Sprintf("fired.some(e => e.data == %q)", last))
		var fired []struct{ ID, Name, Data string }
		if err := json.Unmarshal([]byte(p.Text("JSON.stringify(fired)")), &fired); err != nil {
			t.Fatal(err)
		}
		var received []eventstream.Event
		for _, e := range fired {
			received = append(received, eventstream.Event{Type: e.Name, Data: e.Data, ID: e.ID})
		}
		if err := checkReceived(received, app.wanted(fleetAudience(i))); err != nil {
			t.Errorf("tab %d: %v", i, err)
		}
		p.WantAlive()
	}
	if sum["bye"] < fleetPages {
		t.Errorf("%d streams were ended by a restart, want at least one per page", sum["bye"])
	}
	t.Logf("opened in %.1f s, %d restarts in %.1f s; %d messages sent, of them %d to all; the pages reconnected %d times and received %v",
		opened.Seconds(), len(f.hubs), rolled.Seconds(), len(app.sent), len(app.wanted(audience{})), sum["connect"]-fleetPages, sum)
}

// A fleet is three hub processes with one Redis, behind a proxy.
type fleet struct {
	t      *testing.T
	server *redistest.Server
	proxy  *haproxytest.Proxy
	hubs   []*fleetHub

	left atomic.Int32 // pages that disconnected deliberately so far
	here atomic.Int32 // pages with an open stream
	lost atomic.Int32 // pages that have failed
}

type fleetHub struct {
	name string
	*hubtest.Instance
}

func startFleet(t *testing.T, feed string) *fleet {
	t.Helper()
	f := &fleet{t: t, server: redistest.Start(t)}
	flags := []string{"--feed", feed, "--retry", "200ms", "--drain-delay", "1500ms", "--drain", "1s", "--group-prefix", "group-"}
	addrs := make(map[string]string)
	for _, name := range []string{"a", "b", "c"} {
		h := &fleetHub{name, hubtest.StartInstance(t, f.server, flags...)}
		f.hubs = append(f.hubs, h)
		addrs[name] = h.Public
	}
	f.proxy = haproxytest.Start(t, haproxytest.Config{
		Defaults: documented(t, "## HAProxy", "    defaults"),
		Backend:  documentedBackend(t, addrs),
		MaxConn:  fleetPages + 100,
	})
	for _, h := range f.hubs {
		f.proxy.AwaitUp(h.name)
	}
	return f
}

// restart restarts one hub, as a deploy does, and waits until the proxy routes to it again.
func (f *fleet) restart(h *fleetHub) {
	f.t.Helper()
	if code := h.Stop(f.t, syscall.SIGTERM); code != 0 {
		f.t.Errorf("hub %s: exit code %d", h.name, code)
	}
	h.Start(f.t)
	f.proxy.AwaitUp(h.name)
}

// clients returns the number of open streams on all hubs.
func (f *fleet) clients() (n int) {
	f.t.Helper()
	for _, h := range f.hubs {
		n += int(hubtest.Scrape(f.t, h.Admin).Sum("usercast_clients"))
	}
	return n
}

// documented returns the lines after a line of docs/reverse-proxies.md, below a heading and up to
// the next empty line, so that the test uses the documented configuration.
func documented(t *testing.T, heading, line string) string {
	t.Helper()
	_, chapter, _ := strings.Cut(hubtest.ReadFile(t, "docs/reverse-proxies.md"), "\n"+heading+"\n")
	_, block, found := strings.Cut(chapter, "\n"+line+"\n")
	if !found {
		t.Fatalf("docs/reverse-proxies.md has no line %q below %q", line, heading)
	}
	block, _, _ = strings.Cut(block, "\n\n")
	return block
}

var documentedServer = regexp.MustCompile(`(?m)^( +server (\w+)) \S+ check$`)

// documentedBackend returns the documented backend for several hubs.
func documentedBackend(t *testing.T, addrs map[string]string) string {
	t.Helper()
	block := documented(t, "## Several hubs", "    backend usercast")
	block = strings.Replace(block, "rise 25", "rise 2", 1) // with --retry 200ms, pages reconnect within 0.3 s
	block = documentedServer.ReplaceAllStringFunc(block, func(line string) string {
		m := documentedServer.FindStringSubmatch(line)
		return m[1] + " " + addrs[m[2]] + " check"
	})
	// The error file for unavailable hubs would make a 503 look like a 200.
	return regexp.MustCompile(`(?m)^ +errorfile .*\n`).ReplaceAllString(block, "")
}

// A visitor is a page that reconnects whenever its stream ends, like a browser. It is not safe for concurrent use.
type visitor struct {
	audience
	leaves bool // it disconnects once while messages are published

	stream *ssetest.Stream
	leave  func() // closes it
	lastID string
	retry  time.Duration

	received []eventstream.Event // also "connect", with the hub's name, and "cut"
	err      error               // of read
}

// open opens the stream. It returns an error if a browser would not reconnect.
func (v *visitor) open(ctx context.Context, f *fleet) error {
	var headers []string
	if v.lastID != "" {
		headers = append(headers, "Last-Event-ID: "+v.lastID)
	}
	p, err := ssetest.Request(f.proxy.Addr(), v.query(), headers...)
	if err != nil {
		// A browser would reconnect, but the proxy must not fail in this test.
		return fmt.Errorf("no response from the proxy: %w", err)
	}
	v.record("connect", p.Response.Header.Get(haproxytest.ServerHeader))
	if p.Response.StatusCode != http.StatusOK {
		p.Close()
		return fmt.Errorf("closed permanently: response %s", p.Response.Status)
	}
	p.LastID, p.Retry = v.lastID, v.retry
	unwatch := context.AfterFunc(ctx, p.Close) // interrupts a read at the end of the test
	v.stream, v.leave = p, func() {
		unwatch()
		p.Close()
	}
	f.here.Add(1)
	return nil
}

// read reads up to the last message, and reconnects as often as necessary.
func (v *visitor) read(ctx context.Context, f *fleet) error {
	defer func() { v.leave() }()
	for messages := 0; ; {
		e, err := v.stream.Next()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("no event received: %w", err)
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			if n := v.received[len(v.received)-1].Type; n != "bye" && n != "busy" {
				v.record("cut", err.Error())
			}
			if err := v.reconnect(ctx, f); err != nil {
				return err
			}
			continue
		}
		v.received = append(v.received, e)
		if e.Type != "message" {
			continue
		}
		if messages++; messages == 2 && v.leaves {
			err := v.reconnect(ctx, f)
			f.left.Add(1)
			if err != nil {
				return err
			}
		}
		if e.Data == last {
			return nil
		}
	}
}

func (v *visitor) reconnect(ctx context.Context, f *fleet) error {
	v.lastID, v.retry = v.stream.LastID, v.stream.Retry
	v.leave()
	f.here.Add(-1)
	select {
	case <-time.After(v.retry): // as set by the hub
	case <-ctx.Done():
		return ctx.Err()
	}
	return v.open(ctx, f)
}

func (v *visitor) record(name, data string) {
	v.received = append(v.received, eventstream.Event{ID: v.lastID, Type: name, Data: data})
}

// history returns the received events for error messages.
func (v *visitor) history() string {
	var b strings.Builder
	for _, e := range v.received {
		if e.Type == "message" {
			fmt.Fprintf(&b, "%s ", e.Data)
		} else {
			fmt.Fprintf(&b, "\n  %s %s (at %s): ", e.Type, e.Data, e.ID)
		}
	}
	return b.String()
}

// last is the final message.
const last = "last"

// A traffic is the app: it publishes numbered messages at a constant rate, mostly to one user or group after the other, and
// sometimes to all.
type traffic struct {
	*hubtest.Publisher
	feed  string
	stop  chan struct{}
	ended chan error

	sent []sentMessage // read after it has ended
}

type sentMessage struct {
	message
	data string
}

func (a *traffic) run() error {
	pace := time.NewTicker(10 * time.Millisecond)
	defer pace.Stop()
	for n := 0; ; n++ {
		m := sentMessage{message{user: strconv.Itoa(n % fleetUsers)}, fmt.Sprint(n)}
		switch {
		case n%50 == 0:
			m.user = "*"
		case n%5 == 0:
			m.message = message{group: strconv.Itoa(n / 5 % fleetGroups)}
		}
		select {
		case <-pace.C:
		case <-a.stop:
			return a.send(sentMessage{message{user: "*"}, last})
		}
		if err := a.send(m); err != nil {
			return err
		}
	}
}

func (a *traffic) send(m sentMessage) error {
	words := []string{"PUBLISH", m.channel(), m.data}
	if a.feed == app.FeedStream {
		words = []string{"XADD", app.DefaultStreamKey, "*", "ch", m.channel(), "data", m.data}
	}
	a.Conn.SetDeadline(time.Now().Add(hubtest.Patience))
	if _, err := io.WriteString(a.Conn, hubtest.RedisCommand(words...)); err != nil {
		return err
	}
	if _, err := a.Reply(); err != nil {
		return err
	}
	a.sent = append(a.sent, m)
	return nil
}

// wanted returns the messages that were sent to an audience.
func (a *traffic) wanted(to audience) (data []string) {
	for _, m := range a.sent {
		if to.includes(m.message) {
			data = append(data, m.data)
		}
	}
	return data
}

// checkReceived checks that all messages were received exactly once and in order, and no gap.
func checkReceived(received []eventstream.Event, want []string) error {
	due := 0
	for _, e := range received {
		switch e.Type {
		case "connect", "bye", "busy", "cut":
		case "gap":
			return fmt.Errorf("received a gap, %s, after %d messages", e.Data, due)
		case "message":
			at := slices.Index(want, e.Data)
			switch {
			case at < 0:
				return fmt.Errorf("received message %q of another user", e.Data)
			case at < due:
				return fmt.Errorf("received message %q again or out of order", e.Data)
			case at > due:
				return fmt.Errorf("received message %q without the messages before it; missing: %q", e.Data, want[due:at])
			}
			due = at + 1
		default:
			return fmt.Errorf("received an unexpected event, %+v", e)
		}
	}
	if due < len(want) {
		return fmt.Errorf("did not receive the last %d messages, from %q", len(want)-due, want[due])
	}
	return nil
}

// A tally counts the events that pages received.
type tally map[string]int

func (s tally) add(received []eventstream.Event) {
	for _, e := range received {
		name := e.Type
		if name == "gap" || name == "busy" {
			name += " " + e.Data
		}
		s[name]++
	}
}
