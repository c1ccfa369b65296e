package stream

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestStreamFeedDeliversAndResumesAtAnyHub(t *testing.T) {
	t.Parallel()
	server := hubtest.DurableRedis(t)
	app := hubtest.NewPublisher(t, server.Addr())
	app.Append(t, "user-42", "before")
	one, two := hubtest.StartStreamFeed(t, server), hubtest.StartStreamFeed(t, server)
	p := one.Open(t, "user=42")
	app.Append(t, "user-42:a", "one")
	app.Append(t, "user-*", "two, for all")
	p.Want(t, "one", "two, for all")
	id := p.LastID
	p.Close()

	app.Append(t, "user-7", "of another")
	app.Append(t, "user-42:a", "three")
	app.Append(t, "user-42:b", "four")
	here, there := one.Open(t, "user=42", "Last-Event-ID: "+id), two.Open(t, "user=42&topic=b", "Last-Event-ID: "+id)
	here.Want(t, "three", "four")
	there.Want(t, "four")
	id = here.LastID

	// A new hub and a restart of Redis lose no message.
	app.Append(t, "user-42", "five")
	three := hubtest.StartStreamFeed(t, server)
	moved := three.Open(t, "user=42", "Last-Event-ID: "+id)
	moved.Want(t, "five")
	here.Want(t, "five")
	server.Restart()
	app = hubtest.NewPublisher(t, server.Addr())
	app.Append(t, "user-42", "six")
	for _, p := range []*ssetest.Stream{here, moved} {
		p.Want(t, "six")
	}
	for _, h := range []*hubtest.Hub{one, two, three} {
		h.WantMetrics(t, map[string]float64{"usercast_gaps_total": 0})
	}
	for _, strange := range []string{"abc-1", "1-1-1", "9999999999999-0", "-"} {
		one.Open(t, "user=42", "Last-Event-ID: "+strange).WantGap(t, "unknown-id")
	}
}

// Entries older than the window are read from Redis.
func TestStreamFeedReadsBeyondItsWindow(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	app := hubtest.NewPublisher(t, server.Addr())
	app.Append(t, "user-42", "first")
	first := hubtest.StartStreamFeed(t, server)
	p := first.Open(t, "user=42")
	id := p.LastID
	var want []string
	for i := range 1200 { // the hub reads 200 at a time
		app.Append(t, fmt.Sprint("user-", 40+i%4), fmt.Sprint(i))
		if i%4 == 2 {
			want = append(want, fmt.Sprint(i))
		}
	}
	for _, size := range []string{"0", "20KiB", "64MiB"} {
		h := hubtest.StartStreamFeed(t, server, "--history-bytes", size)
		pages := h.OpenMany(t, 10, func(int) string { return "user=42&last-event-id=" + id })
		hubtest.Each(t, len(pages), func(i int) error {
			for _, text := range want {
				if err := pages[i].Expect("message", text); err != nil {
					return fmt.Errorf("window of %s: %w", size, err)
				}
			}
			return nil
		})
		app.Append(t, "user-42", "live "+size)
		pages[0].Want(t, "live "+size)
		want = append(want, "live "+size)
		h.WantMetrics(t, map[string]float64{"usercast_gaps_total": 0})
	}
	app.Do(t, "XTRIM", "usercast:log", "MAXLEN", "10")
	late := hubtest.StartStreamFeed(t, server).Open(t, "user=42", "Last-Event-ID: "+id)
	late.WantGap(t, "history-expired")
	late.Want(t, want[len(want)-5:]...) // the entries for this user among the last ten
}

func TestStreamFeedStartsWithoutRedis(t *testing.T) {
	t.Parallel()
	server := hubtest.DurableRedis(t)
	app := hubtest.NewPublisher(t, server.Addr())
	other := hubtest.StartStreamFeed(t, server)
	known := other.Open(t, "user=42")
	app.Append(t, "user-42", "one")
	known.Want(t, "one")
	server.Kill()
	h := hubtest.Run(t, hubtest.New(t, server.URL(), "--feed", "stream"))
	fresh, back := h.Open(t, "user=42"), h.Open(t, "user=42", "Last-Event-ID: "+known.LastID)
	strange := h.Open(t, "user=42", "Last-Event-ID: abc-1")
	server.Restart()
	fresh.WantGap(t, "redis-reconnect") // messages since the stream was opened are unknown
	strange.WantGap(t, "unknown-id")
	hubtest.NewPublisher(t, server.Addr()).Append(t, "user-42", "two")
	for _, p := range []*ssetest.Stream{fresh, back, strange, known} {
		p.Want(t, "two")
	}
}

func TestStreamFeedResetSendsAGap(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t) // without persistence
	h := hubtest.StartStreamFeed(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	p, away := h.Open(t, "user=42"), h.Open(t, "user=42")
	app.Append(t, "user-42", "one")
	p.Want(t, "one")
	away.Want(t, "one")
	id := away.LastID
	away.Close()
	server.Restart()
	p.WantGap(t, "feed-reset")
	hubtest.NewPublisher(t, server.Addr()).Append(t, "user-42", "two")
	p.Want(t, "two")
	back := h.Open(t, "user=42", "Last-Event-ID: "+id)
	if e, err := back.Next(); err != nil || e.Type != "gap" {
		t.Errorf("a page that reconnects receives %+v, %v, want a gap", e, err)
	}
}

func TestStreamFeedCarriesCommandsAndMessages(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	one, two := hubtest.StartStreamFeed(t, server), hubtest.StartStreamFeed(t, server)
	p, q := one.Open(t, "user=42"), two.Open(t, "user=42")
	if a := hubtest.Request(t, "POST", one.AdminURL("/api/users/42/messages")); a.Status != 200 || !strings.Contains(a.Body, `"id":"`) {
		t.Errorf("POST: status %d %s", a.Status, a.Body)
	}
	p.Want(t, "")
	q.Want(t, "")
	if a := hubtest.Request(t, "DELETE", one.AdminURL("/api/users/42")); a.Status != 200 || !strings.Contains(a.Body, `"id":"`) {
		t.Errorf("DELETE: status %d %s", a.Status, a.Body)
	}
	for _, p := range []*ssetest.Stream{p, q} {
		p.WantEvent(t, "bye", `{"reason":"kicked"}`)
	}
	// An old control command does not disconnect streams that were opened after it.
	back := hubtest.StartStreamFeed(t, server).Open(t, "user=42", "Last-Event-ID: "+p.LastID)
	hubtest.NewPublisher(t, server.Addr()).Append(t, "user-42", "after")
	back.Want(t, "after")
}

// The hubs are restarted one after the other while messages are published; pages reconnect to
// the next hub. Each page receives every message exactly once.
func TestStreamFeedRollingRestart(t *testing.T) {
	t.Parallel()
	const pages, messages = 12, 600
	server := hubtest.DurableRedis(t)
	hubs := []*hubtest.Hub{hubtest.StartStreamFeed(t, server), hubtest.StartStreamFeed(t, server), hubtest.StartStreamFeed(t, server)}
	app := hubtest.NewPublisher(t, server.Addr())
	open := make([]*ssetest.Stream, pages)
	for i := range open {
		open[i] = hubs[i%3].Open(t, fmt.Sprint("user=", i%4))
	}
	alive := slices.Clone(hubs)
	alive[0] = hubtest.StartStreamFeed(t, server) // replaces the first

	read := func(i int) error {
		p := open[i]
		for n := 0; n < messages; {
			e, err := p.Next()
			switch {
			case err != nil, e.Type == "bye":
				id := p.LastID
				p.Close()
				if p, err = ssetest.Open(alive[0].PublicAddr(), fmt.Sprint("user=", i%4), "Last-Event-ID: "+id); err != nil {
					return err
				}
				defer p.Close()
			case e.Type != "message" || e.Data != fmt.Sprint(n):
				return fmt.Errorf("page %d: received %+v, want message %d", i, e, n)
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
		app.Append(t, "user-*", fmt.Sprint(n))
		if n%160 == 80 && n/160 < len(hubs) {
			hubs[n/160].Interrupt()
		}
	}
	for range open {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
