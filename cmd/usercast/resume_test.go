package main

import (
	"fmt"
	"testing"
	"time"

	"usercast/internal/redistest"
)

func TestPageThatComesBackGetsWhatItMissed(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server)
	app := newPublisher(t, server.Addr())
	p := h.openPage(t, "user=42")
	app.publish(t, "user-42", "one")
	p.want(t, "one")
	id := p.lastID
	p.close()
	h.wantMetrics(t, map[string]float64{"usercast_clients": 0})

	app.publish(t, "user-42:a", "two")
	app.publish(t, "user-7", "of another")
	app.publish(t, "user-*:b", "three, for all")
	h.wantMetrics(t, map[string]float64{"usercast_messages_received_total": 4})
	back := map[string]*page{
		"header":          h.openPage(t, "user=42", "Last-Event-ID: "+id),
		"query":           h.openPage(t, "user=42&last-event-id="+id),
		"header wins":     h.openPage(t, "user=42&last-event-id=abc-1", "Last-Event-ID: "+id),
		"filter a":        h.openPage(t, "user=42&topic=a", "Last-Event-ID: "+id),
		"filter b":        h.openPage(t, "user=42&topic=b", "Last-Event-ID: "+id),
		"filter of none":  h.openPage(t, "user=42&topic=c", "Last-Event-ID: "+id),
		"of another user": h.openPage(t, "user=7", "Last-Event-ID: "+id),
	}
	app.publish(t, "user-42:c", "four")
	app.publish(t, "user-7:c", "four")
	for name, want := range map[string][]string{
		"header":         {"two", "three, for all", "four"},
		"query":          {"two", "three, for all", "four"},
		"header wins":    {"two", "three, for all", "four"},
		"filter a":       {"two"},
		"filter b":       {"three, for all"},
		"filter of none": {"four"},
	} {
		t.Run(name, func(t *testing.T) { back[name].want(t, want...) })
	}
	// Nobody listened for that user then, so nothing was kept.
	back["of another user"].wantGap(t, "history-expired")
	back["of another user"].want(t, "four")
	h.wantMetrics(t, map[string]float64{
		"usercast_replayed_total":    8,
		"usercast_gaps_total":        1,
		"usercast_history_entries":   6, // with the gap of the first subscription
		"usercast_deliveries_total":  14,
		"usercast_connects_total":    8,
		"usercast_disconnects_total": 1,
	})
}

// No id is an error: the browser would send it for ever.
func TestStrangeIDIsAGap(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server)
	app := newPublisher(t, server.Addr())
	first := h.openPage(t, "user=42")
	for _, strange := range []string{"1", "abc-1", "9999999999999-0", first.lastID + "0", "-", "x y", "\xff", "*"} {
		p := h.openPage(t, "user=42", "Last-Event-ID: "+strange)
		again := h.openPage(t, "user=42", "Last-Event-ID: "+p.lastID) // the gap was lost on the way
		p.wantGap(t, "unknown-id")
		again.wantGap(t, "unknown-id")
		told := h.openPage(t, "user=42", "Last-Event-ID: "+p.lastID)
		app.publish(t, "user-42", strange)
		for _, p := range []*page{p, again, told} {
			p.expectText(t)
			p.close()
		}
		first.expectText(t)
	}
}

// expectText wants a message of any text.
func (p *page) expectText(t *testing.T) {
	t.Helper()
	if e, err := p.next(); err != nil || e.name != "message" {
		t.Errorf("got %+v, %v, want a message", e, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	server := redistest.Start(t)
	app := newPublisher(t, server.Addr())
	for name, test := range map[string]struct {
		flag, value string
		kept        int
	}{
		"per user":     {"--history-per-user", "3", 3},
		"by bytes":     {"--history-bytes", "7000", 3}, // of about 2,200 each
		"not at all":   {"--history-per-user", "0", 0},
		"for no time":  {"--history-age", "0", 0},
		"of no bytes":  {"--history-bytes", "0", 0},
		"as delivered": {"--retry", "3s", 10},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHub(t, server, test.flag, test.value)
			p := h.openPage(t, "user=42")
			id := p.lastID
			var texts []string
			for i := range 10 {
				texts = append(texts, fmt.Sprintf("%d %02000d", i, 0))
				app.publish(t, "user-42", texts[i])
			}
			p.want(t, texts...)
			back := h.openPage(t, "user=42", "Last-Event-ID: "+id)
			if test.kept < 10 {
				back.wantGap(t, "history-expired")
			}
			back.want(t, texts[10-test.kept:]...)
		})
	}
}

// A stream that gets nothing has the position from its pings.
func TestQuietStreamResumesFromItsPing(t *testing.T) {
	server := redistest.Start(t)
	h := startHub(t, server, "--ping-interval", "50ms", "--history-per-user", "2")
	app := newPublisher(t, server.Addr())
	quiet, filtered := h.openPage(t, "user=42"), h.openPage(t, "user=42&topic=none&ping=event")
	opened := quiet.lastID
	busy := h.openPage(t, "user=7")
	for range 10 {
		app.publish(t, "user-7", "x")
		busy.want(t, "x")
		app.publish(t, "user-42:a", "x")
		quiet.want(t, "x")
	}
	for deadline := time.Now().Add(soon); filtered.lastID != quiet.lastID; {
		if e, err := filtered.next(); err != nil || e.name != "ping" || time.Now().After(deadline) {
			t.Fatalf("got %+v, %v, id %s; want a ping with the id %s", e, err, filtered.lastID, quiet.lastID)
		}
	}
	id := filtered.lastID
	filtered.close()
	back := h.openPage(t, "user=42&topic=none", "Last-Event-ID: "+id)
	h.openPage(t, "user=42&topic=none", "Last-Event-ID: "+opened).wantGap(t, "history-expired")
	app.publish(t, "user-42:none", "y")
	back.want(t, "y")
}

// A page that was away during an outage hears of it in its place.
func TestGapIsReplayedInItsPlace(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := startHub(t, server, writer)
		p := h.openPage(t, "user=42")
		id := p.lastID
		p.close()
		newPublisher(t, server.Addr()).publish(t, "user-42", "before")
		h.wantMetrics(t, map[string]float64{"usercast_messages_received_total": 1}) // or Redis may die with it
		server.Restart()
		h.waitUntilSubscribed(t, 2)
		newPublisher(t, server.Addr()).publish(t, "user-42", "after")
		back := h.openPage(t, "user=42", "Last-Event-ID: "+id)
		back.want(t, "before")
		back.wantGap(t, "redis-reconnect")
		back.want(t, "after")
	})
}

// Streams come and go while messages flow: none is lost or doubled on the way from
// replay to queue.
func TestResumeWhileMessagesFlow(t *testing.T) {
	writers(t, func(t *testing.T, writer string) {
		const pages, messages = 20, 5000
		server := redistest.Start(t)
		h := startHub(t, server, writer, "--history-per-user", "5000")
		app := newPublisher(t, server.Addr())
		open := h.openPages(t, pages, func(int) string { return "user=42" })
		read := func(i int) error {
			p := open[i]
			for n := range messages {
				if err := p.expect("message", fmt.Sprint(n)); err != nil {
					return err
				}
				if n%(500+i) == 100 {
					id := p.lastID
					p.close()
					var err error
					if p, err = openPageAt(h.PublicAddr(), "user=42", "Last-Event-ID: "+id); err != nil {
						return err
					}
					defer p.close()
				}
			}
			return nil
		}
		errs := make(chan error, pages)
		for i := range pages {
			go func() { errs <- read(i) }()
		}
		app.burst(t, messages, func(i int) (string, string) { return "user-42", fmt.Sprint(i) })
		for range pages {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}
