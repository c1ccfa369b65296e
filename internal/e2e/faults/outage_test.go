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

func TestKilledRedisEndsNoStreamAndIsAnnouncedToAll(t *testing.T) {
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const streams = 300
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		pages := h.OpenMany(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		before := hubtest.NewPublisher(t, server.Addr())
		before.Publish(t, "user-*", "before")
		hubtest.Each(t, streams, func(i int) error { return pages[i].Expect("message", "before") })

		server.Kill()
		hubtest.Eventually(t, "the hub knows that Redis is away", func() bool { return !h.FeedStats()[0].Connected })
		if a := hubtest.Request(t, "GET", h.PublicURL("/readyz")); a.Status != 200 {
			t.Errorf("/readyz is %d while Redis is away: a balancer would end every EventSource for good", a.Status)
		}
		if a := hubtest.Request(t, "GET", h.AdminURL("/readyz")); a.Status != 200 || feeds(t, a)[0].Connected {
			t.Errorf("the admin listener tells of no outage: %d %s", a.Status, a.Body)
		}
		h.WantMetrics(t, map[string]float64{"usercast_redis_connected": 0})

		server.Restart()
		hubtest.Within(t, 2*time.Second, "the hub has subscribed again", func() bool { return h.FeedStats()[0].Generation == 2 })
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
			"usercast_connects_total": streams, // nobody has left and come back
			"usercast_gaps_total" + hubtest.Reason("redis-reconnect"): streams,
			"usercast_redis_reconnects_total":                         1,
			"usercast_redis_connected":                                1,
		})
	})
}

// A stream with nothing else to get hears of the gap too, in time, and not at
// the same moment as all the others.
func TestGapReachesQuietStreamsSpreadOverAFewSeconds(t *testing.T) {
	t.Parallel()
	hubtest.EachWriter(t, func(t *testing.T, writer string) {
		const streams = 300
		server := redistest.Start(t)
		h := hubtest.Start(t, server, writer)
		pages := h.OpenMany(t, streams, func(i int) string { return fmt.Sprintf("user=%d", i) })
		server.Restart()
		heard := make(chan time.Time, streams)
		for _, p := range pages {
			go func() {
				if err := p.Expect("gap", `{"reason":"redis-reconnect"}`); err != nil {
					t.Error(err)
				}
				heard <- time.Now()
			}()
		}
		first := <-heard
		last := first
		for range streams - 1 {
			last = <-heard
		}
		if over := last.Sub(first); over < 300*time.Millisecond || over > app.GapSpread+2*time.Second {
			t.Errorf("%d pages refetch within %v", streams, over)
		}
	})
}

func TestHubStartsWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	relay := redistest.StartRelay(t, server.Addr()) // it counts the attempts
	server.Kill()
	h := hubtest.Run(t, hubtest.New(t, relay.URL()))

	hubtest.Eventually(t, "the hub has tried often", func() bool { return relay.Accepted() > 3 })
	if n := len(h.Log.Lines("level=WARN")); n != 1 {
		t.Errorf("%d warnings about one fault:\n%s", n, h.Log)
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
	early := h.Open(t, "user=42") // a 200 and a position, and then nothing

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

	// Nor does a later outage turn it red.
	server.Kill()
	hubtest.Eventually(t, "the hub knows that Redis is away", func() bool { return !h.FeedStats()[0].Connected })
	if a := hubtest.Request(t, "GET", h.PublicURL("/readyz")); a.Status != 200 {
		t.Errorf("public /readyz in an outage: %d", a.Status)
	}
}

// The promise: whatever happens to the subscription, what a page has not got is
// announced, in its place.
func TestNothingIsMissedUnannounced(t *testing.T) {
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
			// Redis does in one go what comes in one piece: nobody hears this one.
			app.Conn.SetDeadline(time.Now().Add(hubtest.Patience))
			if _, err := io.WriteString(app.Conn, hubtest.RedisCommand("CLIENT", "KILL", "TYPE", "pubsub")+hubtest.RedisCommand("PUBLISH", "user-*", number())); err != nil {
				t.Fatal(err)
			}
			for _, what := range []string{"cut", "heard"} {
				if got, err := app.Reply(); err != nil || what == "heard" && got != "0" {
					t.Fatalf("%s: %s, %v", what, got, err)
				}
			}
			for h.FeedStats()[0].Generation < uint64(generation+2) {
				app.Do(t, "PUBLISH", "user-*", number()) // perhaps to nobody
			}
			app.Publish(t, "user-*", number()) // else it would not show that one is missing
		}
		h.AwaitSubscription(t, cuts+1)
		app.Publish(t, "user-*", "last")
		total := 0
		for range pages {
			total += <-missed
		}
		if total < streams*cuts {
			t.Errorf("only %d are missing: this proves nothing", total)
		}
		h.WantMetrics(t, map[string]float64{
			"usercast_gaps_total":             streams * cuts,
			"usercast_clients":                streams,
			"usercast_redis_reconnects_total": cuts,
		})
	})
}

// countMissed reads numbers up to "last" and returns how many were left out. It is
// an error if that was not announced before the next number.
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
			return missed, fmt.Errorf("got %s %q after %d, gap announced: %v", e.Type, e.Data, next-1, announced)
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
		t.Fatalf("/readyz says %q: %v", a.Body, err)
	}
	return status.Feeds
}
