package stream

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"usercast/internal/hubtest"
	"usercast/internal/redistest"
)

// Checks invariant 9 in the metrics: whatever happens to streams and messages,
// every message is counted exactly once at each step.
func TestConservationInTheMetrics(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const users, rounds, length = 8, 60, 2000
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer, "--queue", "50", "--send-buffer", "4096", "--write-timeout", "2s", "--max-payload", "4KiB")
		app := hubtest.NewPublisher(t, server.Addr())

		// Four pages per user: one reads everything, one never reads, one disconnects
		// halfway, and one has a topic filter.
		query := func(i int) string { return fmt.Sprintf("user=%d", i) }
		readers := h.OpenMany(t, users, query)
		h.OpenMany(t, users, query)
		leavers := h.OpenMany(t, users, query)
		h.OpenMany(t, users, func(i int) string { return query(i) + "&topic=none" })
		var reading sync.WaitGroup
		for _, p := range readers {
			reading.Go(func() {
				for e, err := p.Next(); err == nil && e.Data != "last"; e, err = p.Next() {
				}
			})
		}
		for i, p := range leavers {
			reading.Go(func() {
				for range i {
					p.Next()
				}
				p.Close()
			})
		}

		sent := map[string]float64{}
		payload := strings.Repeat("x", length)
		kinds := []struct {
			kind, channel, payload string
		}{
			{"routed", "user-*:news", payload},
			{"routed", "user-*", ""},
			{"unrouted", "user-nobody:activity", payload},
			{"unrouted", "user-99", payload},
			{"malformed", "user-", payload},
			{"malformed", "user-:activity", payload},
			{"too_large", "user-1:activity", strings.Repeat("x", 5000)},
			{"too_large", "user-nobody", strings.Repeat("x", 5000)},
			{"malformed", "user-", strings.Repeat("x", 5000)},
		}
		for range rounds {
			app.Burst(t, users+len(kinds), func(i int) (string, string) {
				if i < users {
					sent["routed"]++
					return fmt.Sprintf("user-%d:activity", i), payload
				}
				k := kinds[i-users]
				sent[k.kind]++
				return k.channel, k.payload
			})
		}
		app.Publish(t, "user-*", "last")
		sent["routed"]++
		reading.Wait()

		messages := func(m hubtest.Samples, kind string) float64 { return m.Sum("usercast_messages_" + kind + "_total") }
		var m hubtest.Samples
		hubtest.Eventually(t, "all messages are delivered or discarded", func() bool {
			m = h.Scrape(t)
			// The pages with a filter and those that read everything are left.
			return m["usercast_frames_queued"] == 0 && m["usercast_clients"] <= 2*users
		})
		for kind, n := range sent {
			if messages(m, kind) != n {
				t.Errorf("%v messages are counted as %s, %v were sent", messages(m, kind), kind, n)
			}
		}
		if got, want := messages(m, "received"), messages(m, "routed")+messages(m, "unrouted")+messages(m, "malformed")+messages(m, "too_large"); got != want {
			t.Errorf("received %v != routed + unrouted + malformed + too_large = %v", got, want)
		}
		discarded := m.Sum("usercast_frames_discarded_total")
		if got, want := m["usercast_frames_enqueued_total"], m["usercast_deliveries_total"]+discarded+m["usercast_frames_queued"]; got != want {
			t.Errorf("enqueued %v != deliveries %v + discarded %v + queued %v", got, m["usercast_deliveries_total"], discarded, m["usercast_frames_queued"])
		}
		if got, want := m["usercast_connects_total"], m["usercast_clients"]+m.Sum("usercast_disconnects_total"); got != want {
			t.Errorf("connects %v != clients + disconnects = %v", got, want)
		}
		if got, want := m["usercast_delivery_seconds_count"], m["usercast_deliveries_total"]; got != want {
			t.Errorf("delivery_seconds counts %v deliveries, want %v", got, want)
		}
		// The sums above would also match if nothing had been discarded or disconnected.
		for _, reason := range []string{"slow", "closed"} {
			if m.ByReason("usercast_disconnects_total", reason) == 0 {
				t.Errorf("no stream ended as %s", reason)
			}
		}
		if m.ByReason("usercast_frames_discarded_total", "slow") == 0 {
			t.Error("no frame was discarded")
		}
		if t.Failed() {
			t.Logf("%v", m)
		}
	})
}
