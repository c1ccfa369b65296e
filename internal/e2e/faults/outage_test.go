package faults

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/hubtest"
	"usercast/internal/redistest"
	"usercast/internal/ssetest"
)

func TestKilledRedisSendsGapsWithoutEndingStreams(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const streams = 300
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		pages := h.OpenMany(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		before := hubtest.NewPublisher(t, server.Addr())
		before.Publish(t, "user-*", "before")
		hubtest.Each(t, streams, func(i int) error { return pages[i].Expect("message", "before") })

		server.Kill()
		hubtest.Eventually(t, "the hub has detected that Redis is down", func() bool { return !h.FeedStats()[0].Connected })
		if a := hubtest.Request(t, "GET", h.PublicURL("/readyz")); a.Status != 200 {
			t.Errorf("/readyz is %d while Redis is down: a load balancer would close every EventSource permanently", a.Status)
		}
		if a := hubtest.Request(t, "GET", h.AdminURL("/readyz")); a.Status != 200 || feeds(t, a)[0].Connected {
			t.Errorf("the admin listener does not report the outage: %d %s", a.Status, a.Body)
		}
		h.WantMetrics(t, map[string]float64{"usercast_redis_connected": 0})

		server.Restart()
		hubtest.Within(t, 2*time.Second, "the hub has resubscribed", func() bool { return h.FeedStats()[0].Generation == 2 })
		after := hubtest.NewPublisher(t, server.Addr())
		after.Publish(t, "user-*", "to all")
		for i := range streams {
			after.Publish(t, fmt.Sprintf("user-%d", i), fmt.Sprint("after ", i))
		}
		hubtest.Each(t, streams, func(i int) error {
			if err := pages[i].Expect("gap", `{"reason":"redis-reconnect"}`); err != nil {
				return err
			}
			if err := pages[i].Expect("message", "to all"); err != nil {
				return err
			}
			return pages[i].Expect("message", fmt.Sprint("after ", i))
		})
		h.WantMetrics(t, map[string]float64{
			"usercast_clients":        streams,
			"usercast_connects_total": streams, // no page has reconnected
			"usercast_gaps_total" + hubtest.Reason("redis-reconnect"): streams,
			"usercast_redis_reconnects_total":                         1,
			"usercast_redis_connected":                                1,
		})
	})
}

// Idle streams also receive the gap, within a few seconds, but not all at the same time.
func TestGapsToIdleStreamsAreSpreadOverAFewSeconds(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const streams = 300
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		pages := h.OpenMany(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		server.Restart()
		received := make(chan time.Time, streams)
		for _, p := range pages {
			go func() {
				if err := p.Expect("gap", `{"reason":"redis-reconnect"}`); err != nil {
					t.Error(err)
				}
				received <- time.Now()
			}()
		}
		first := <-received
		last := first
		for range streams - 1 {
			last = <-received
		}
		if over := last.Sub(first); over < 300*time.Millisecond || over > app.GapSpread+2*time.Second {
			t.Errorf("%d pages received the gap within %v", streams, over)
		}
	})
}

func TestHubStartsWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr()) // counts the connection attempts
	server.Kill()
	h := hubtest.Run(t, hubtest.New(t, relay.URL()))

	hubtest.Eventually(t, "the hub has retried several times", func() bool { return relay.Accepted() > 3 })
	if n := len(h.Log.Lines("level=WARN")); n != 1 {
		t.Errorf("%d warnings about one failure:\n%s", n, h.Log)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/readyz")); a.Status != 503 || a.Body != "not ready\n" {
		t.Errorf("public /readyz before the first subscription: %d %q", a.Status, a.Body)
	}
	if a := hubtest.Request(t, "GET", h.AdminURL("/readyz")); a.Status != 503 || feeds(t, a)[0].Connected {
		t.Errorf("admin /readyz before the first subscription: %d %q", a.Status, a.Body)
	}
	if a := hubtest.Request(t, "GET", h.PublicURL("/livez")); a.Status != 200 {
		t.Errorf("/livez without Redis: %d", a.Status)
	}
	early := h.Open(t, "user=42") // receives a 200 and a position, then nothing

	server.Restart()
	hubtest.Eventually(t, "the hub is ready", func() bool { return hubtest.Request(t, "GET", h.PublicURL("/readyz")).Status == 200 })
	late := h.Open(t, "user=42")
	hubtest.NewPublisher(t, server.Addr()).Publish(t, "user-42", "hello")
	early.WantGap(t, "redis-reconnect")
	early.Want(t, "hello")
	late.Want(t, "hello")
	if a := hubtest.Request(t, "GET", h.AdminURL("/readyz")); a.Status != 200 || !feeds(t, a)[0].Connected {
		t.Errorf("admin /readyz after the first subscription: %d %q", a.Status, a.Body)
	}
	h.WantMetrics(t, map[string]float64{"usercast_redis_reconnects_total": 0})

	// A later outage does not change the public /readyz.
	server.Kill()
	hubtest.Eventually(t, "the hub has detected that Redis is down", func() bool { return !h.FeedStats()[0].Connected })
	if a := hubtest.Request(t, "GET", h.PublicURL("/readyz")); a.Status != 200 {
		t.Errorf("public /readyz during an outage: %d", a.Status)
	}
}

// Checks the guarantee: whatever happens to the subscription, messages that a page does not receive are
// announced by a gap in their place.
func TestMissedMessagesAreAnnouncedByGaps(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const streams, cuts = 30, 4
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		app := hubtest.NewPublisher(t, server.Addr())
		pages := h.OpenMany(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		missed := make(chan int, streams)
		for _, p := range pages {
			go func() {
				n, err := countMissed(p)
				if err != nil {
					t.Error(err)
				}
				missed <- n
			}()
		}
		n := 0
		number := func() string { n++; return fmt.Sprint(n - 1) }
		for generation := range cuts {
			// Redis runs commands that arrive together without interruption, so this message has no subscriber.
			app.Conn.SetDeadline(time.Now().Add(hubtest.Patience))
			if _, err := io.WriteString(app.Conn, hubtest.RedisCommand("CLIENT", "KILL", "TYPE", "pubsub")+hubtest.RedisCommand("PUBLISH", "user-*", number())); err != nil {
				t.Fatal(err)
			}
			for _, what := range []string{"kill", "publish"} {
				if got, err := app.Reply(); err != nil || what == "publish" && got != "0" {
					t.Fatalf("%s: %s, %v", what, got, err)
				}
			}
			for h.FeedStats()[0].Generation < uint64(generation+2) {
				app.Do(t, "PUBLISH", "user-*", number()) // possibly without a subscriber
			}
			app.Publish(t, "user-*", number()) // shows whether a message is missing
		}
		h.AwaitSubscription(t, cuts+1)
		app.Publish(t, "user-*", "last")
		total := 0
		for range pages {
			total += <-missed
		}
		if total < streams*cuts {
			t.Errorf("only %d messages are missing, so the test proves nothing", total)
		}
		h.WantMetrics(t, map[string]float64{
			"usercast_gaps_total":             streams * cuts,
			"usercast_clients":                streams,
			"usercast_redis_reconnects_total": cuts,
		})
	})
}

// countMissed reads numbers up to "last" and returns how many were missing. It is
// an error if a gap was not received before the next number.
func countMissed(p *ssetest.Stream) (missed int, err error) {
	next, announced := 0, false
	for {
		e, err := p.Next()
		switch {
		case err != nil:
			return missed, err
		case e.Type == "gap":
			announced = true
			continue
		case e.Data == "last":
			return missed, nil
		}
		n, err := strconv.Atoi(e.Data)
		if err != nil || n < next || n > next && !announced {
			return missed, fmt.Errorf("received %s %q after %d, gap announced: %v", e.Type, e.Data, next-1, announced)
		}
		missed += n - next
		next, announced = n+1, false
	}
}

// feeds reads the body of the admin listener's /readyz.
func feeds(t *testing.T, a hubtest.Response) []struct{ Connected bool } {
	t.Helper()
	var status struct{ Feeds []struct{ Connected bool } }
	if err := json.Unmarshal([]byte(a.Body), &status); err != nil || len(status.Feeds) == 0 {
		t.Fatalf("/readyz returns %q: %v", a.Body, err)
	}
	return status.Feeds
}
