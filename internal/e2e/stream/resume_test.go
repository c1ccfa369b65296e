package stream

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestReconnectingPageReceivesMissedMessages(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	p := h.Open(t, "user=42")
	app.Publish(t, "user-42", "one")
	p.Want(t, "one")
	id := p.LastID
	p.Close()
	h.WantMetrics(t, map[string]float64{"usercast_clients": 0})

	app.Publish(t, "user-42:a", "two")
	app.Publish(t, "user-7", "of another")
	app.Publish(t, "user-*:b", "three, for all")
	h.WantMetrics(t, map[string]float64{"usercast_messages_received_total": 4})
	back := map[string]*ssetest.Stream{
		"header":          h.Open(t, "user=42", "Last-Event-ID: "+id),
		"query":           h.Open(t, "user=42&last-event-id="+id),
		"header wins":     h.Open(t, "user=42&last-event-id=abc-1", "Last-Event-ID: "+id),
		"filter a":        h.Open(t, "user=42&topic=a", "Last-Event-ID: "+id),
		"filter b":        h.Open(t, "user=42&topic=b", "Last-Event-ID: "+id),
		"filter of none":  h.Open(t, "user=42&topic=c", "Last-Event-ID: "+id),
		"of another user": h.Open(t, "user=7", "Last-Event-ID: "+id),
	}
	app.Publish(t, "user-42:c", "four")
	app.Publish(t, "user-7:c", "four")
	for name, want := range map[string][]string{
		"header":         {"two", "three, for all", "four"},
		"query":          {"two", "three, for all", "four"},
		"header wins":    {"two", "three, for all", "four"},
		"filter a":       {"two"},
		"filter b":       {"three, for all"},
		"filter of none": {"four"},
	} {
		t.Run(name, func(t *testing.T) { back[name].Want(t, want...) })
	}
	// That user had no stream at the time. The hub also keeps messages for users who come from other hubs.
	back["of another user"].Want(t, "of another", "three, for all", "four")
	h.WantMetrics(t, map[string]float64{
		"usercast_replayed_total":    10,
		"usercast_gaps_total":        0,
		"usercast_history_entries":   8, // including the gap of the first subscription, and twice the message of an absent user
		"usercast_deliveries_total":  16,
		"usercast_connects_total":    8,
		"usercast_disconnects_total": 1,
	})
}

// An invalid ID does not cause an error response, because the browser would send the same ID at each reconnect.
func TestUnknownIDIsAGap(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	first := h.Open(t, "user=42")
	marker, _, _ := strings.Cut(first.LastID, "-")
	for _, strange := range []string{"1", "abc-1", "9999999999999-0", marker + "-1000", marker + "-00", "abcdefghijklm-0", "-", "x y", "\xff", "*"} {
		p := h.Open(t, "user=42", "Last-Event-ID: "+strange)
		again := h.Open(t, "user=42", "Last-Event-ID: "+p.LastID) // as if the gap was not received
		p.WantGap(t, "unknown-id")
		again.WantGap(t, "unknown-id")
		resumed := h.Open(t, "user=42", "Last-Event-ID: "+p.LastID)
		app.Publish(t, "user-42", strange)
		for _, p := range []*ssetest.Stream{p, again, resumed} {
			expectText(t, p)
			p.Close()
		}
		expectText(t, first)
	}
}

// expectText expects a message with any data.
func expectText(t *testing.T, p *ssetest.Stream) {
	t.Helper()
	if e, err := p.Next(); err != nil || e.Type != "message" {
		t.Errorf("received %+v, %v, want a message", e, err)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	app := hubtest.NewPublisher(t, server.Addr())
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
			h := hubtest.Start(t, server, test.flag, test.value)
			p := h.Open(t, "user=42")
			id := p.LastID
			var texts []string
			for i := range 10 {
				texts = append(texts, fmt.Sprintf("%d %02000d", i, 0))
				app.Publish(t, "user-42", texts[i])
			}
			p.Want(t, texts...)
			back := h.Open(t, "user=42", "Last-Event-ID: "+id)
			if test.kept < 10 {
				back.WantGap(t, "history-expired")
			}
			back.Want(t, texts[10-test.kept:]...)
		})
	}
}

// A stream without messages receives its position in pings.
func TestIdleStreamResumesFromItsPing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	h := hubtest.Start(t, server, "--ping-interval", "50ms", "--history-per-user", "2")
	app := hubtest.NewPublisher(t, server.Addr())
	quiet, filtered := h.Open(t, "user=42"), h.Open(t, "user=42&topic=none&ping=event")
	opened := quiet.LastID
	busy := h.Open(t, "user=7")
	for range 10 {
		app.Publish(t, "user-7", "x")
		busy.Want(t, "x")
		app.Publish(t, "user-42:a", "x")
		quiet.Want(t, "x")
	}
	for deadline := time.Now().Add(hubtest.Soon); filtered.LastID != quiet.LastID; {
		if e, err := filtered.Next(); err != nil || e.Type != "ping" || time.Now().After(deadline) {
			t.Fatalf("received %+v, %v, ID %s; want a ping with the ID %s", e, err, filtered.LastID, quiet.LastID)
		}
	}
	id := filtered.LastID
	filtered.Close()
	back := h.Open(t, "user=42&topic=none", "Last-Event-ID: "+id)
	h.Open(t, "user=42&topic=none", "Last-Event-ID: "+opened).WantGap(t, "history-expired")
	app.Publish(t, "user-42:none", "y")
	back.Want(t, "y")
}

// A page that was disconnected during an outage receives the gap in order when it resumes.
func TestGapIsReplayedInOrder(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		p := h.Open(t, "user=42")
		id := p.LastID
		p.Close()
		hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "before")
		h.WantMetrics(t, map[string]float64{"usercast_messages_received_total": 1}) // the hub has received it before Redis restarts
		server.Restart()
		h.AwaitSubscription(t, 2)
		hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "after")
		back := h.Open(t, "user=42", "Last-Event-ID: "+id)
		back.Want(t, "before")
		back.WantGap(t, "redis-reconnect")
		back.Want(t, "after")
	})
}

// Streams reconnect while messages are published: no message is lost or duplicated between replay and queue.
func TestResumeWhileMessagesArrive(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const pages, messages = 10, 2000
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--history-per-user", "2000", "--queue", "2000")
		app := hubtest.NewPublisher(t, server.Addr())
		open := h.OpenMany(t, pages, func(int) string { return "user=42" })
		read := func(i int) error {
			p := open[i]
			for n := range messages {
				if err := p.Expect("message", fmt.Sprint(n)); err != nil {
					return err
				}
				if n%(100+i) == 50 {
					id := p.LastID
					p.Close()
					var err error
					if p, err = ssetest.Open(h.PublicAddr(), "user=42", "Last-Event-ID: "+id); err != nil {
						return err
					}
					defer p.Close()
				}
			}
			return nil
		}
		errs := make(chan error, pages)
		for i := range pages {
			go func() { errs <- read(i) }()
		}
		app.Burst(t, messages, func(i int) (string, string) { return "user-42", fmt.Sprint(i) })
		for range pages {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}
