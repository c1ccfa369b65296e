package stream

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"usercast/hub"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

// The hub has one subscription and one connection for markers, whatever the number of streams.
func TestOneSubscriptionForAThousandStreams(t *testing.T) {
	server := redistest.Start(t)
	h := hubtest.Start(t, server)
	app := hubtest.NewPublisher(t, server.Addr())
	pages := h.OpenMany(t, 1000, func(i int) string { return fmt.Sprintf("user=%d", i%200) })

	if n := app.Publish(t, "user-*", "to all"); n != 1 {
		t.Errorf("%d subscribers received a message, want 1", n)
	}
	hubtest.Each(t, len(pages), func(i int) error { return pages[i].Expect("message", "to all") })

	var subscriptions, others []string
	for line := range strings.Lines(app.Do(t, "CLIENT", "LIST")) {
		switch {
		case !strings.Contains(line, " name=usercast "):
		case strings.Contains(line, " psub=1 "):
			subscriptions = append(subscriptions, line)
		default:
			others = append(others, line)
		}
	}
	if len(subscriptions) != 1 || len(others) > 1 {
		t.Errorf("want one subscription with one pattern, and one other connection, got:\n%s%s", strings.Join(subscriptions, ""), strings.Join(others, ""))
	}
	h.WantMetrics(t, map[string]float64{"usercast_clients": 1000, "usercast_users": 200})
}

// The queue of a stream holds a burst of pipelined messages, and they arrive exactly once and in order. A
// broadcast is queued for every stream.
func TestBurstArrivesExactlyOnceInOrder(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const streams, burst = 12, 1000 // per stream
		server := redistest.Start(t)
		app := hubtest.NewPublisher(t, server.Addr())
		for name, c := range map[string]struct {
			messages int
			user     func(i int) string
		}{
			"one user after the other": {streams * burst, func(i int) string { return strconv.Itoa(i / burst) }},
			"all users in turn":        {streams * burst, func(i int) string { return strconv.Itoa(i % streams) }},
			"broadcast":                {burst, func(int) string { return "*" }},
		} {
			t.Run(name, func(t *testing.T) {
				h := hubtest.Start(t, server, writer)
				pages := h.OpenMany(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
				received := expectNumbers(pages, burst)
				sent := make(map[string]int)
				app.Burst(t, c.messages, func(i int) (string, string) {
					user := c.user(i)
					sent[user]++
					return "user-" + user, strconv.Itoa(sent[user] - 1)
				})
				received(t)
				// The next message is new, so no message arrived twice.
				app.Publish(t, "user-*", "last")
				for _, p := range pages {
					p.Want(t, "last")
				}
				h.WantMetrics(t, map[string]float64{
					"usercast_messages_received_total": float64(c.messages + 1),
					"usercast_clients":                 streams,
					"usercast_deliveries_total":        streams * (burst + 1),
					"usercast_disconnects_total":       0,
				})
			})
		}
	})
}

// A stalled reader only affects its own stream.
func TestStalledReaderIsClosedAfterWriteTimeout(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the write timeout")
	}
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--write-timeout", "2s", "--send-buffer", "4096")
		app := hubtest.NewPublisher(t, server.Addr())
		healthy := h.Open(t, "user=42")
		stopped := h.Open(t, "user=42")

		// More than the kernel's buffers hold, far less than the queue's bound.
		const messages, length = 40, 20_000
		large := strings.Repeat("x", length)
		go func() {
			for range messages {
				healthy.Expect("message", large)
			}
		}()
		for range messages {
			app.Publish(t, "user-42", large)
		}
		hubtest.Eventually(t, "the stopped stream has ended", func() bool { return h.Hub().Stats().Clients == 1 })
		if s := h.Hub().Stats(); s.Disconnects[hub.ReasonSlow] != 1 {
			t.Errorf("disconnects: %v, want one slow", s.Disconnects)
		}
		for {
			_, err := stopped.Next()
			if err == nil {
				continue
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection of the stopped stream was not closed")
			}
			break
		}
	})
}

// expectNumbers reads all pages concurrently, and returns a function that waits for the results.
func expectNumbers(pages []*ssetest.Stream, n int) (wait func(*testing.T)) {
	received := make(chan error, len(pages))
	for _, p := range pages {
		go func() { received <- p.ExpectNumbers(n) }()
	}
	return func(t *testing.T) {
		t.Helper()
		for range pages {
			if err := <-received; err != nil {
				t.Error(err)
			}
		}
	}
}
