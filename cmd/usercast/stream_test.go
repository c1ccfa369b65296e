package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"usercast/internal/redistest"
)

// startLog is a hub on the stream feed.
func startLog(t *testing.T, server *redistest.Server, flags ...string) *liveHub {
	t.Helper()
	return startHub(t, server, append([]string{"--feed", "stream"}, flags...)...)
}

func durable(t *testing.T) *redistest.Server {
	return redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
}

func (p *publisher) appendTo(t *testing.T, channel, payload string) {
	t.Helper()
	p.do(t, "XADD", "usercast:log", "*", "ch", channel, "data", payload)
}

func TestStreamFeedDeliversAndResumesAtAnyHub(t *testing.T) {
	server := durable(t)
	app := newPublisher(t, server.Addr())
	app.appendTo(t, "user-42", "before")
	one, two := startLog(t, server), startLog(t, server)
	p := one.openPage(t, "user=42")
	app.appendTo(t, "user-42:a", "one")
	app.appendTo(t, "user-*", "two, for all")
	p.want(t, "one", "two, for all")
	id := p.lastID
	p.close()

	app.appendTo(t, "user-7", "of another")
	app.appendTo(t, "user-42:a", "three")
	app.appendTo(t, "user-42:b", "four")
	here, there := one.openPage(t, "user=42", "Last-Event-ID: "+id), two.openPage(t, "user=42&topic=b", "Last-Event-ID: "+id)
	here.want(t, "three", "four")
	there.want(t, "four")
	id = here.lastID

	// A hub that starts later, and Redis killed and back, lose nothing.
	app.appendTo(t, "user-42", "five")
	three := startLog(t, server)
	moved := three.openPage(t, "user=42", "Last-Event-ID: "+id)
	moved.want(t, "five")
	here.want(t, "five")
	server.Restart()
	app = newPublisher(t, server.Addr())
	app.appendTo(t, "user-42", "six")
	for _, p := range []*page{here, moved} {
		p.want(t, "six")
	}
	for _, h := range []*liveHub{one, two, three} {
		h.wantMetrics(t, map[string]float64{"usercast_gaps_total": 0})
	}
	for _, strange := range []string{"abc-1", "1-1-1", "9999999999999-0", "-"} {
		one.openPage(t, "user=42", "Last-Event-ID: "+strange).wantGap(t, "unknown-id")
	}
}

// What is older than the window is read from Redis.
func TestStreamFeedReadsBeyondItsWindow(t *testing.T) {
	server := redistest.Start(t)
	app := newPublisher(t, server.Addr())
	app.appendTo(t, "user-42", "first")
	first := startLog(t, server)
	p := first.openPage(t, "user=42")
	id := p.lastID
	var want []string
	for i := range 3000 {
		app.appendTo(t, fmt.Sprint("user-", 40+i%4), fmt.Sprint(i))
		if i%4 == 2 {
			want = append(want, fmt.Sprint(i))
		}
	}
	for _, size := range []string{"0", "20KiB", "64MiB"} {
		h := startLog(t, server, "--history-bytes", size)
		pages := h.openPages(t, 20, func(int) string { return "user=42&last-event-id=" + id })
		each(t, len(pages), func(i int) error {
			for _, text := range want {
				if err := pages[i].expect("message", text); err != nil {
					return fmt.Errorf("window of %s: %w", size, err)
				}
			}
			return nil
		})
		app.appendTo(t, "user-42", "live "+size)
		pages[0].want(t, "live "+size)
		want = append(want, "live "+size)
		h.wantMetrics(t, map[string]float64{"usercast_gaps_total": 0})
	}
	app.do(t, "XTRIM", "usercast:log", "MAXLEN", "10")
	late := startLog(t, server).openPage(t, "user=42", "Last-Event-ID: "+id)
	late.wantGap(t, "history-expired")
	late.want(t, want[len(want)-5:]...) // those of the last ten entries that are for this user
}

func TestStreamFeedStartsWithoutRedis(t *testing.T) {
	server := durable(t)
	app := newPublisher(t, server.Addr())
	other := startLog(t, server)
	known := other.openPage(t, "user=42")
	app.appendTo(t, "user-42", "one")
	known.want(t, "one")
	server.Kill()
	h := runHub(t, newHub(t, server.URL(), "--feed", "stream"))
	fresh, back := h.openPage(t, "user=42"), h.openPage(t, "user=42", "Last-Event-ID: "+known.lastID)
	strange := h.openPage(t, "user=42", "Last-Event-ID: abc-1")
	server.Restart()
	fresh.wantGap(t, "redis-reconnect") // what came between its opening and now is not known
	strange.wantGap(t, "unknown-id")
	newPublisher(t, server.Addr()).appendTo(t, "user-42", "two")
	for _, p := range []*page{fresh, back, strange, known} {
		p.want(t, "two")
	}
}

func TestStreamFeedThatGoesBackwardsIsAGap(t *testing.T) {
	server := redistest.Start(t) // keeps nothing
	h := startLog(t, server)
	app := newPublisher(t, server.Addr())
	p, away := h.openPage(t, "user=42"), h.openPage(t, "user=42")
	app.appendTo(t, "user-42", "one")
	p.want(t, "one")
	away.want(t, "one")
	id := away.lastID
	away.close()
	server.Restart()
	p.wantGap(t, "feed-reset")
	newPublisher(t, server.Addr()).appendTo(t, "user-42", "two")
	p.want(t, "two")
	back := h.openPage(t, "user=42", "Last-Event-ID: "+id)
	if e, err := back.next(); err != nil || e.name != "gap" {
		t.Errorf("a page that was away gets %+v, %v, want a gap", e, err)
	}
}

func TestStreamFeedCarriesOrdersAndPublishing(t *testing.T) {
	server := redistest.Start(t)
	one, two := startLog(t, server), startLog(t, server)
	p, q := one.openPage(t, "user=42"), two.openPage(t, "user=42")
	code, stdout, stderr := runCommand("", "publish", "--redis", server.URL(), "--feed", "stream", "42:a", "hello")
	if code != 0 || !strings.HasPrefix(stdout, "appended for user-42:a to usercast:log as ") {
		t.Errorf("publish: exit code %d, %q, %q", code, stdout, stderr)
	}
	if a := ask(t, "POST", one.private("/api/users/42/messages")); a.code != 200 || !strings.Contains(a.body, `"id":"`) {
		t.Errorf("POST is answered with %d %s", a.code, a.body)
	}
	p.want(t, "hello", "")
	q.want(t, "hello", "")
	if a := ask(t, "DELETE", one.private("/api/users/42")); a.code != 200 || !strings.Contains(a.body, `"id":"`) {
		t.Errorf("DELETE is answered with %d %s", a.code, a.body)
	}
	for _, p := range []*page{p, q} {
		p.wantEvent(t, "bye", `{"reason":"kicked"}`)
	}
	// An order that is old does not hit those who came after it.
	back := startLog(t, server).openPage(t, "user=42", "Last-Event-ID: "+p.lastID)
	newPublisher(t, server.Addr()).appendTo(t, "user-42", "after")
	back.want(t, "after")
}

// The hubs are restarted one after the other while messages flow; pages move from
// one to the next. Each gets every message exactly once.
func TestStreamFeedRollingRestart(t *testing.T) {
	const pages, messages = 30, 1500
	server := durable(t)
	hubs := []*liveHub{startLog(t, server), startLog(t, server), startLog(t, server)}
	app := newPublisher(t, server.Addr())
	open := make([]*page, pages)
	for i := range open {
		open[i] = hubs[i%3].openPage(t, fmt.Sprint("user=", i%10))
	}
	alive := slices.Clone(hubs)
	alive[0] = startLog(t, server) // takes the place of the first

	read := func(i int) error {
		p := open[i]
		for n := 0; n < messages; {
			e, err := p.next()
			switch {
			case err != nil, e.name == "bye":
				id := p.lastID
				p.close()
				if p, err = openPageAt(alive[0].PublicAddr(), fmt.Sprint("user=", i%10), "Last-Event-ID: "+id); err != nil {
					return err
				}
				defer p.close()
			case e.name != "message" || e.data != fmt.Sprint(n):
				return fmt.Errorf("page %d: got %+v, want message %d", i, e, n)
			default:
				n++
			}
		}
		return nil
	}
	errs := make(chan error, pages)
	for i := range open {
		go func() { errs <- read(i) }()
	}
	for n := range messages {
		app.appendTo(t, "user-*", fmt.Sprint(n))
		if n%400 == 200 && n/400 < len(hubs) {
			hubs[n/400].stop(errInterrupt)
		}
	}
	for range open {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// The stream is in the database that the URL names, for the hub, its API and the command.
func TestStreamFeedUsesTheDatabaseOfItsURL(t *testing.T) {
	server := redistest.Start(t)
	url := server.URL() + "/3"
	h := runHub(t, newHub(t, url, "--feed", "stream"))
	h.waitUntilSubscribed(t, 1)
	p := h.openPage(t, "user=42")
	app := newPublisher(t, server.Addr())
	app.do(t, "SELECT", "3")
	app.appendTo(t, "user-42", "by the app")
	p.want(t, "by the app")
	if code, stdout, stderr := runCommand("", "publish", "--redis", url, "--feed", "stream", "42", "by the command"); code != 0 || stderr != "" {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	p.want(t, "by the command")
	if a := ask(t, "POST", h.private("/api/users/42/messages")); a.code != 200 || !strings.Contains(a.body, `"id":"`) {
		t.Errorf("%+v", a)
	}
	p.want(t, "")
	if stdout, _, _ := runCheck(t, anywhere(url, "--auth", "insecure", "--feed", "stream")...); !strings.Contains(stdout, "usercast:log has 3 entries") {
		t.Errorf("check says\n%s", stdout)
	}
}
